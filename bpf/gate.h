/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
 *
 * The rules for what comes in, the same for XDP and tc: who is answered, what
 * is taken, what is not let in. The role is read here and never decided.
 */
#ifndef GATE_H
#define GATE_H

#define ND_NS	     135
#define ND_NA	     136
#define OPT_SLLA     1
#define OPT_TLLA     2
#define NA_ROUTER    0x80000000
#define NA_SOLICITED 0x40000000
#define NA_OVERRIDE  0x20000000

#define ND_OPTION_BLOCKS 8  /* of 8 bytes; more than any stack sends */
#define NA_LEN		 86 /* Ethernet, IPv6, advertisement, one option */

enum action {
	NEXT, /* no rule has spoken yet */
	PASS, /* as it came */
	TAKE, /* now addressed to the device: let the stack have it */
	DROP,
	ANSWER,	   /* the frame has become the answer: send it back */
	ANSWER_ND, /* finding says what the answer is */
	ADVERT,	   /* finding says where it lies */
};

/* What the gate found out about a frame. */
struct finding {
	void *ctx;
	__u32 vhid;
	enum reason why;
	int answer_here; /* by the program that asks, not by one behind it */
	int judged;	 /* adverts, by a program before this one */
	int solicited;	 /* the asker has an address */
	int router;
	__u8 asker[6];
	__u8 link[6]; /* where the answer comes from */
	__u8 told[6]; /* and what it says */
	struct in6_addr to;
	struct in6_addr target;
	struct payload advert;
};

static __always_inline int say(struct finding *f, __u32 vhid, enum reason why, int action)
{
	f->vhid = vhid;
	f->why = why;
	return action;
}

/* Somebody says that a shared address is his. While we are master our stack
 * must not believe it; else it is the master, whom it has to believe.
 */
static __always_inline int claim(struct finding *f, __u32 vhid, const __u8 *mac, enum reason conflict)
{
	__u32 by = vmac_vhid(mac);
	struct vhid *v;

	if (!by)
		by = mcast_vhid(mac);
	if (by != vhid && share_of(vhid)) {
		v = vhid_of(by); /* one of those that share it, which are all ours */
		by = v && v->flags & VHID_CONFIGURED ? vhid : 0;
	}
	return say(f, vhid, by == vhid ? R_ANNOUNCE : conflict, role_for(vhid) == ROLE_MASTER ? DROP : PASS);
}

/* The MACs of an answer. One that all nodes receive must never be seen as a
 * source, or switches learn where it is.
 */
static __always_inline void set_answer(struct finding *f, const struct share *s, __u32 vhid)
{
	struct port *p = s && s->flags & SHARE_FRAMES ? this_port() : NULL;

	set_told(f->told, s, vhid);
	if (p)
		set_mac(f->link, p->mac);
	else
		set_vmac(f->link, vhid);
}

static __always_inline int gate_arp(struct cursor *c, struct ethhdr *eth, struct finding *f)
{
	struct share *s;
	struct arp *arp;
	__u32 vhid;
	int op = parse_arp(c, &arp);

	if (op < 0)
		return say(f, 0, R_ARP_BAD, PASS);

	vhid = op == 1 && addr(arp->spa) != addr(arp->tpa) ? owner4(addr(arp->tpa)) : 0;
	if (!vhid) {
		vhid = owner4(addr(arp->spa));
		return vhid ? claim(f, vhid, arp->sha, R_ARP_CONFLICT) : NEXT;
	}
	s = share_of(vhid);
	vhid = answerer(s, vhid, arp->sha, addr(arp->spa));
	if (role_of(vhid) != ROLE_MASTER)
		return say(f, vhid, R_ARP_SILENT, DROP);
	if ((eth->h_source[0] | arp->sha[0]) & 1)
		return say(f, vhid, R_ARP_BAD, DROP); /* an answer would go to many */
	if (!f->answer_here)
		return say(f, vhid, R_HANDED_UP, PASS);

	/* Back to where it came from, as the answer. */
	__be32 asked = addr(arp->tpa);

	set_answer(f, s, vhid);
	set_mac(eth->h_dest, eth->h_source);
	set_mac(eth->h_source, f->link);
	arp->op = bpf_htons(2);
	set_mac(arp->tha, arp->sha);
	__builtin_memcpy(arp->tpa, arp->spa, 4);
	set_mac(arp->sha, f->told);
	__builtin_memcpy(arp->spa, &asked, 4);
	return say(f, vhid, R_ARP_ANSWERED, ANSWER);
}

/* RFC 4861 section 7.1.1: what a node must find right before it answers. */
static __always_inline int solicitation_bad(struct cursor *c, struct ethhdr *eth, struct ipv6hdr *ip,
					    struct nd *nd, __u32 len)
{
	__u32 n = bpf_ntohs(ip->payload_len), options = n - sizeof(*nd), left = 0;
	int unspecified = !(ip->saddr.in6_u.u6_addr32[0] | ip->saddr.in6_u.u6_addr32[1] |
			    ip->saddr.in6_u.u6_addr32[2] | ip->saddr.in6_u.u6_addr32[3]);
	__u64 sum = sum_words(&ip->saddr, 8) + bpf_htonl(n) + bpf_htonl(PROTO_ICMP6) + sum_words(nd, 6);

	if (ip->hop_limit != HOP_LIMIT || nd->code || n < sizeof(*nd) || n % 8)
		return 1;
	if (options > ND_OPTION_BLOCKS * 8 || sizeof(*eth) + sizeof(*ip) + n > len)
		return 1;
	if (eth->h_source[0] & 1 || ip->saddr.in6_u.u6_addr8[0] == 0xff)
		return 1; /* an answer would go to many */
	if (unspecified &&
	    (ip->daddr.in6_u.u6_addr32[0] != bpf_htonl(0xff020000) || ip->daddr.in6_u.u6_addr32[1] ||
	     ip->daddr.in6_u.u6_addr32[2] != bpf_htonl(1) || ip->daddr.in6_u.u6_addr8[12] != 0xff))
		return 1;
	/* One walk for sum and options: a block is the head of an option, or
	 * one of the blocks that the head announced.
	 */
#pragma unroll
	for (__u32 i = 0; i < ND_OPTION_BLOCKS; i++) {
		__u8 *b = c->at + 8 * i;

		if (8 * i < options) {
			if ((void *)(b + 8) > c->end)
				return 1;
			sum += sum_words(b, 2);
			if (!left) {
				left = b[1];
				if (!left || (unspecified && b[0] == OPT_SLLA))
					return 1;
			}
			left--;
		}
	}
	return left || fold(sum);
}

static __always_inline int gate_nd(struct cursor *c, struct ethhdr *eth, struct ipv6hdr *ip, __u32 len,
				   struct finding *f)
{
	struct share *s;
	struct port *p;
	struct nd *nd;
	__u32 vhid;
	__u8 *type = c->at;

	/* Echo requests and the like must not cost a look-up. */
	if ((void *)(type + 1) > c->end || (*type != ND_NS && *type != ND_NA) || parse_nd(c, &nd) < 0)
		return NEXT;
	vhid = owner6(&nd->target);
	if (!vhid)
		return NEXT;
	if (*type == ND_NA)
		return claim(f, vhid, eth->h_source, R_ND_CONFLICT);
	s = share_of(vhid);
	vhid = answerer(s, vhid, eth->h_source, fold6(&ip->saddr));
	if (role_of(vhid) != ROLE_MASTER)
		return say(f, vhid, R_ND_SILENT, DROP);
	if (solicitation_bad(c, eth, ip, nd, len))
		return say(f, vhid, R_ND_BAD, DROP);
	if (!f->answer_here)
		return say(f, vhid, R_HANDED_UP, PASS);

	p = this_port();
	f->router = p && p->flags & PORT_ROUTER;
	f->target = nd->target;
	f->solicited = !!(ip->saddr.in6_u.u6_addr32[0] | ip->saddr.in6_u.u6_addr32[1] |
			  ip->saddr.in6_u.u6_addr32[2] | ip->saddr.in6_u.u6_addr32[3]);
	if (f->solicited) {
		f->to = ip->saddr;
		set_mac(f->asker, eth->h_source);
	} else { /* duplicate address detection: all nodes hear that it is taken */
		f->to.in6_u.u6_addr32[0] = bpf_htonl(0xff020000);
		f->to.in6_u.u6_addr32[1] = f->to.in6_u.u6_addr32[2] = 0;
		f->to.in6_u.u6_addr32[3] = bpf_htonl(1);
		*(__u32 *)f->asker = bpf_htonl(0x33330000);
		f->asker[4] = 0;
		f->asker[5] = 1;
	}
	set_answer(f, s, vhid);
	return say(f, vhid, R_ND_ANSWERED, ANSWER_ND);
}

/* Writes the advertisement over a frame that has been cut or grown to NA_LEN. */
static __always_inline int write_na(void *data, void *end, struct finding *f)
{
	struct {
		struct ipv6hdr ip;
		struct nd nd;
		__u8 option[8];
	} na = {};
	struct ethhdr *eth = data;

	if (data + NA_LEN > end)
		return -1;
	na.ip.version = 6;
	na.ip.payload_len = bpf_htons(sizeof(na) - sizeof(na.ip));
	na.ip.nexthdr = PROTO_ICMP6;
	na.ip.hop_limit = HOP_LIMIT;
	na.ip.saddr = f->target;
	na.ip.daddr = f->to;
	na.nd.type = ND_NA;
	na.nd.flags =
		bpf_htonl(NA_OVERRIDE | (f->solicited ? NA_SOLICITED : 0) | (f->router ? NA_ROUTER : 0));
	na.nd.target = f->target;
	na.option[0] = OPT_TLLA;
	na.option[1] = 1;
	set_mac(na.option + 2, f->told);
	na.nd.sum = fold(sum_words(&na.ip.saddr, 8) + bpf_htonl(sizeof(na) - sizeof(na.ip)) +
			 bpf_htonl(PROTO_ICMP6) + sum_words(&na.nd, 8));

	set_mac(eth->h_dest, f->asker);
	set_mac(eth->h_source, f->link);
	eth->h_proto = bpf_htons(ETH_P_IPV6);
	__builtin_memcpy(eth + 1, &na, sizeof(na));
	return 0;
}

/* Is this frame addressed to this device, under one of its names, or to many? An
 * advert may go to one peer, or to a multicast group of the operator's choice.
 */
static __always_inline int for_us(struct ethhdr *eth)
{
	struct port *p = this_port();

	return eth->h_dest[0] & 1 || (p && (same_mac(eth->h_dest, p->mac) || vmac_vhid(eth->h_dest)));
}

static __always_inline int gate_advert(void *end, struct ethhdr *eth, enum shielding shielding,
				       struct finding *f)
{
	__u32 vhid;
	enum reason why = advert(&f->advert, end, &vhid);

	if (!f->judged && note(f->ctx, why, &f->advert, eth))
		why = shielding == VERIFY ? weigh_proof(vhid) : weigh_number(vhid);
	return say(f, vhid, why, certainly_false(why) ? DROP : PASS);
}

static __always_inline int gate_ipv4(struct cursor *c, struct ethhdr *eth, __u32 len, struct finding *f)
{
	struct payload *p = &f->advert;
	struct iphdr *ip;
	__u32 hlen;
	__u16 frag;

	if (parse_ipv4(c, &ip) != PROTO_CARP)
		return NEXT;
	if (!for_us(eth))
		return NEXT;
	frag = bpf_ntohs(ip->frag_off);
	if (frag & IP_OFFSET)
		return say(f, 0, R_FRAGMENT, PASS); /* no header: whose it is, nobody knows */
	hlen = ip->ihl * 4;
	if (hlen < sizeof(*ip))
		return say(f, 0, R_RUNT, PASS);
	p->at = (void *)ip + hlen;
	p->off = sizeof(*eth) + hlen;
	p->len = (__s32)bpf_ntohs(ip->tot_len) - (__s32)hlen;
	p->have = len - sizeof(*eth) - hlen;
	p->ttl = ip->ttl;
	p->fragment = frag & IP_MF;
	p->from.in6_u.u6_addr32[0] = p->from.in6_u.u6_addr32[1] = 0;
	p->from.in6_u.u6_addr32[2] = bpf_htonl(0xffff);
	p->from.in6_u.u6_addr32[3] = ip->saddr;
	return ADVERT;
}

static __always_inline int gate_ipv6(struct cursor *c, struct ethhdr *eth, __u32 len, struct finding *f)
{
	struct payload *p = &f->advert;
	struct ipv6hdr *ip;
	int proto = parse_ipv6(c, &ip);

	if (proto == PROTO_ICMP6)
		return gate_nd(c, eth, ip, len, f);
	if (proto != PROTO_CARP)
		return NEXT;
	if (!for_us(eth))
		return NEXT;
	p->at = c->at;
	p->off = sizeof(*eth) + sizeof(*ip);
	p->len = bpf_ntohs(ip->payload_len);
	p->have = len - sizeof(*eth) - sizeof(*ip);
	p->ttl = ip->hop_limit;
	p->fragment = 0;
	p->from = ip->saddr;
	return ADVERT;
}

/* Frames for a virtual MAC become frames for the device, or nothing. Of those that
 * every node receives, each keeps its share.
 */
static __always_inline int gate_vmac(struct ethhdr *eth, void *end, int proto, struct finding *f)
{
	__u32 vhid = vmac_vhid(eth->h_dest), many = mcast_vhid(eth->h_dest), to;
	enum reason silent = R_VMAC_SILENT;
	struct share *s;
	struct port *p;
	struct vhid *v;

	if (!(vhid | many))
		return say(f, 0, R_FOREIGN, PASS);
	v = vhid_of(vhid | many);
	if (!v || !(v->flags & VHID_CONFIGURED))
		return say(f, 0, many ? R_FOREIGN : R_VMAC_UNKNOWN, PASS);
	s = share_of(vhid | many);
	if (many && !(s && s->flags & SHARE_MULTICAST))
		return say(f, 0, R_FOREIGN, PASS); /* of an IP group, 224.0.1.VHID perhaps */
	to = s && s->flags & SHARE_FRAMES ? keeper(s, eth + 1, end, proto) : 0;
	if (many && !to)
		return say(f, 0, R_FOREIGN, PASS);
	if (to) {
		vhid = to;
		silent = R_VMAC_OTHER;
		v = vhid_of(to);
	}
	p = this_port();
	if (!p || !v || role_of(vhid) < ROLE_MASTER) {
		if (v && !many && silent == R_VMAC_SILENT)
			v->hint = bpf_ktime_get_boot_ns(); /* its master may be gone: see pulse.h */
		return say(f, vhid, silent, DROP);
	}
	if (!v->first)
		v->first = bpf_ktime_get_boot_ns();
	set_mac(eth->h_dest, p->mac);
	return say(f, vhid, R_VMAC_TAKEN, TAKE);
}

/* len: of the whole frame, which may be more than lies between data and end. */
static __always_inline int gate(void *data, void *end, __u32 len, enum shielding shielding, struct finding *f)
{
	struct cursor c = {data, end};
	struct ethhdr *eth;
	int action = NEXT;

	switch (parse_eth(&c, &eth)) {
	case -1:
		return say(f, 0, R_RUNT, PASS);
	case ETH_P_ARP:
		action = gate_arp(&c, eth, f);
		break;
	case ETH_P_IP:
		action = gate_ipv4(&c, eth, len, f);
		break;
	case ETH_P_IPV6:
		action = gate_ipv6(&c, eth, len, f);
		break;
	case ETH_P_8021Q:
	case ETH_P_8021AD:
		return say(f, 0, R_VLAN, PASS); /* another segment, with vhids of its own */
	}
	switch (action) {
	case NEXT:
		return gate_vmac(eth, end, bpf_ntohs(eth->h_proto), f);
	case ADVERT:
		return gate_advert(end, eth, shielding, f);
	}
	return action;
}

#endif
