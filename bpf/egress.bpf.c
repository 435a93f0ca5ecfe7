/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
 *
 * tc egress on the carpdev: the fence. Nothing leaves from a shared address or a
 * virtual MAC without the role for it, whoever sends it and however late; what
 * the stack says about a shared address in ARP and neighbour discovery, it says
 * with the virtual MAC.
 */
#include "vmlinux.h"
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "carp.h"
#include "maps.h"
#include "frame.h"
#include "share.h"

#define TC_ACT_UNSPEC (-1) /* on to the next program: others have theirs */
#define TC_ACT_SHOT   2

#define VLAN_VID 0xfff

#define ND_RS	 133
#define ND_RA	 134
#define ND_NS	 135
#define ND_NA	 136
#define OPT_SLLA 1
#define OPT_TLLA 2

#define OPT_NONE 253 /* for experiments, RFC 4727: receivers ignore it */

#define ND_OPTIONS 8 /* options looked at: the stack's own come first */
#define ND_AT	   (sizeof(struct ethhdr) + sizeof(struct ipv6hdr))
#define ND_SUM_AT  (ND_AT + 2)
#define HEADERS	   (ND_AT + sizeof(struct nd))

/* Puts the MAC into the link-layer address options of a message about a shared
 * address, or hides the option if there is none to say, and repairs the checksum.
 */
static __always_inline void set_options(struct __sk_buff *skb, __u8 type, const __u8 *mac)
{
	__u8 want = type == ND_NA ? OPT_TLLA : OPT_SLLA;
	__u32 at = ND_AT + (type == ND_RS ? 8 : type == ND_RA ? 16 : 24);

	for (int i = 0; i < ND_OPTIONS; i++) {
		__u32 old[2], new[2];
		__u8 *o = (__u8 *)old;

		if (bpf_skb_load_bytes(skb, at, old, 8) || !o[1])
			return;
		if (o[0] == want && o[1] == 1) {
			new[0] = old[0];
			new[1] = old[1];
			if (mac)
				set_mac((__u8 *)new + 2, mac);
			else
				*(__u8 *)new = OPT_NONE;
			__s64 diff = bpf_csum_diff(old, 8, new, 8, 0);

			bpf_l4_csum_replace(skb, ND_SUM_AT, 0, diff, 0);
			bpf_skb_store_bytes(skb, at, new, 8, 0);
		}
		at += 8 * o[1];
	}
}

/* Makes the virtual MAC the frame's source. */
static __always_inline void set_source(struct __sk_buff *skb, __u32 vhid)
{
	__u8 mac[6];

	set_vmac(mac, vhid);
	bpf_skb_store_bytes(skb, __builtin_offsetof(struct ethhdr, h_source), mac, 6, 0);
}

/* ARP for an address that several vhids share. Only an answer is for one neighbour,
 * and so of one vhid; from a question or an announcement all would learn the same.
 * A question leaves as a probe, from which nobody learns: RFC 5227 section 2.1.1.
 */
static __always_inline int fence_shared_arp(struct __sk_buff *skb, struct arp *arp, int op, __u32 vhid,
					    struct share *s)
{
	__be32 none = 0;
	__u32 by;
	__u8 mac[6];

	if (role_for(vhid) != ROLE_MASTER)
		return verdict(vhid, R_FENCE_ARP, TC_ACT_SHOT);
	if (op == 1) {
		if (addr(arp->spa) == addr(arp->tpa))
			return verdict(vhid, R_FENCE_ARP, TC_ACT_SHOT);
		bpf_skb_store_bytes(skb, sizeof(struct ethhdr) + __builtin_offsetof(struct arp, spa), &none,
				    4, 0);
		return verdict(vhid, R_OUT_ARP, TC_ACT_UNSPEC);
	}
	by = answerer(s, vhid, arp->tha, addr(arp->tpa));
	if (role_of(by) != ROLE_MASTER)
		return verdict(by, R_FENCE_ARP, TC_ACT_SHOT);
	set_told(mac, s, by);
	if (!(s->flags & SHARE_FRAMES))
		set_source(skb, by);
	bpf_skb_store_bytes(skb, sizeof(struct ethhdr) + __builtin_offsetof(struct arp, sha), mac, 6, 0);
	return verdict(by, R_OUT_ARP, TC_ACT_UNSPEC);
}

static __always_inline int fence_arp(struct __sk_buff *skb, struct cursor *c)
{
	struct share *s;
	struct arp *arp;
	__u32 vhid;
	__u8 mac[6];
	int op = parse_arp(c, &arp);

	if (op < 0)
		return verdict(0, R_FOREIGN, TC_ACT_UNSPEC);
	vhid = owner4(addr(arp->spa));
	if (!vhid)
		return verdict(0, R_FOREIGN, TC_ACT_UNSPEC);
	s = share_of(vhid);
	if (s)
		return fence_shared_arp(skb, arp, op, vhid, s);
	if (role_of(vhid) != ROLE_MASTER)
		return verdict(vhid, R_FENCE_ARP, TC_ACT_SHOT);
	set_source(skb, vhid);
	set_vmac(mac, vhid);
	bpf_skb_store_bytes(skb, sizeof(struct ethhdr) + __builtin_offsetof(struct arp, sha), mac, 6, 0);
	return verdict(vhid, R_OUT_ARP, TC_ACT_UNSPEC);
}

static __always_inline int fence_ipv4(struct __sk_buff *skb, struct cursor *c)
{
	struct iphdr *ip;
	__u32 vhid;

	if (parse_ipv4(c, &ip) < 0)
		return verdict(0, R_FOREIGN, TC_ACT_UNSPEC);
	__be32 to = ip->daddr;

	vhid = owner4(ip->saddr);
	if (vhid && role_for(vhid) < ROLE_MASTER)
		return verdict(vhid, R_FENCE_SOURCE, TC_ACT_SHOT);
	if (skb->ingress_ifindex == skb->ifindex) {
		vhid = owner4(to);
		if (vhid)
			return verdict(vhid, R_HAIRPIN, TC_ACT_SHOT);
	}
	return verdict(0, R_FOREIGN, TC_ACT_UNSPEC);
}

/* Neighbour discovery about an address that several vhids share, as ARP: but for an
 * advertisement to one neighbour nothing is said about the MAC, and who wants to
 * know it asks.
 */
static __always_inline int fence_shared_nd(struct __sk_buff *skb, const __u8 *to, __be32 ip, __u8 type,
					   __u32 vhid, struct share *s)
{
	__u32 by;
	__u8 mac[6];

	if (role_for(vhid) != ROLE_MASTER)
		return verdict(vhid, R_FENCE_ND, TC_ACT_SHOT);
	if (type != ND_NA) {
		set_options(skb, type, NULL);
		return verdict(vhid, R_OUT_ND, TC_ACT_UNSPEC);
	}
	by = answerer(s, vhid, to, ip);
	if (to[0] & 1 || role_of(by) != ROLE_MASTER)
		return verdict(by, R_FENCE_ND, TC_ACT_SHOT);
	set_told(mac, s, by);
	if (!(s->flags & SHARE_FRAMES))
		set_source(skb, by);
	set_options(skb, type, mac);
	return verdict(by, R_OUT_ND, TC_ACT_UNSPEC);
}

static __always_inline int fence_ipv6(struct __sk_buff *skb, struct cursor *c, struct ethhdr *eth)
{
	struct ipv6hdr *ip;
	struct nd *nd;
	int proto = parse_ipv6(c, &ip);
	__u32 vhid, of;
	struct share *s;
	__u8 type, mac[6];

	if (proto < 0)
		return verdict(0, R_FOREIGN, TC_ACT_UNSPEC);
	vhid = owner6(&ip->saddr);
	if (vhid && role_for(vhid) < ROLE_MASTER)
		return verdict(vhid, R_FENCE_SOURCE, TC_ACT_SHOT);
	if (skb->ingress_ifindex == skb->ifindex) {
		of = owner6(&ip->daddr);
		if (of)
			return verdict(of, R_HAIRPIN, TC_ACT_SHOT);
	}
	if (proto != PROTO_ICMP6 || c->at + 8 > c->end)
		return verdict(0, R_FOREIGN, TC_ACT_UNSPEC);
	type = *(__u8 *)c->at;
	if (type < ND_RS || type > ND_NA)
		return verdict(0, R_FOREIGN, TC_ACT_UNSPEC);
	/* An advertisement speaks for its target, the others for their source. */
	if (type == ND_NA) {
		if (parse_nd(c, &nd) < 0)
			return verdict(0, R_FOREIGN, TC_ACT_UNSPEC);
		vhid = owner6(&nd->target);
	}
	if (!vhid)
		return verdict(0, R_FOREIGN, TC_ACT_UNSPEC);
	s = share_of(vhid);
	if (s) {
		set_mac(mac, eth->h_dest);
		return fence_shared_nd(skb, mac, fold6(&ip->daddr), type, vhid, s);
	}
	if (role_of(vhid) != ROLE_MASTER)
		return verdict(vhid, R_FENCE_ND, TC_ACT_SHOT);
	set_source(skb, vhid);
	set_vmac(mac, vhid);
	set_options(skb, type, mac);
	return verdict(vhid, R_OUT_ND, TC_ACT_UNSPEC);
}

SEC("tc") int carp_egress(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct cursor c;
	struct ethhdr *eth;
	struct vhid *v;
	struct port *p;
	__u32 vhid;
	int proto, hide = 0;

	/* A sender of packets may leave the headers in pages: no way around. */
	if (skb->len > end - data && end - data < (long)HEADERS) {
		if (bpf_skb_pull_data(skb, skb->len < HEADERS ? skb->len : HEADERS))
			return verdict(0, R_RUNT, TC_ACT_SHOT); /* a fence that cannot see lets nothing out */
		data = (void *)(long)skb->data;
		end = (void *)(long)skb->data_end;
	}
	c.at = data;
	c.end = end;
	proto = parse_eth(&c, &eth);
	if (proto < 0)
		return verdict(0, R_RUNT, TC_ACT_UNSPEC);
	vhid = vmac_vhid(eth->h_source);
	if (vhid) {
		v = vhid_of(vhid);
		if (v && v->flags & VHID_CONFIGURED) {
			if (role_of(vhid) != ROLE_MASTER)
				return verdict(vhid, R_FENCE_VMAC, TC_ACT_SHOT);
			count(vhid, R_OUT_VMAC);
			hide = v->flags & VHID_HIDDEN;
		}
	}
	p = hide ? this_port() : NULL;
	if (p) {
		bpf_skb_store_bytes(skb, __builtin_offsetof(struct ethhdr, h_source), p->mac, 6, 0);
		c.at = (void *)(long)skb->data;
		c.end = (void *)(long)skb->data_end;
		if (parse_eth(&c, &eth) < 0)
			return verdict(0, R_RUNT, TC_ACT_SHOT);
	}
	if (skb->vlan_present && skb->vlan_tci & VLAN_VID)
		return verdict(0, R_FOREIGN, TC_ACT_UNSPEC); /* another segment */
	switch (proto) {
	case ETH_P_ARP:
		return fence_arp(skb, &c);
	case ETH_P_IP:
		return fence_ipv4(skb, &c);
	case ETH_P_IPV6:
		return fence_ipv6(skb, &c, eth);
	}
	return verdict(0, R_FOREIGN, TC_ACT_UNSPEC);
}

char _license[] SEC("license") = "Dual BSD/GPL";
