/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
 *
 * Headers. A parser moves the cursor behind its header and returns the next
 * protocol, or -1 when the frame ends before the header does.
 */
#ifndef FRAME_H
#define FRAME_H

#define ETH_P_IP     0x0800
#define ETH_P_ARP    0x0806
#define ETH_P_8021Q  0x8100
#define ETH_P_8021AD 0x88a8
#define ETH_P_IPV6   0x86dd

#define PROTO_CARP  112
#define PROTO_ICMP6 58

#define IP_MF	  0x2000
#define IP_OFFSET 0x1fff

#define HOP_LIMIT 255 /* of a packet that no router forwarded */

struct cursor {
	void *at;
	void *end;
};

/* The ARP of Ethernet and IPv4, RFC 826. */
struct arp {
	__be16 hrd, pro;
	__u8 hln, pln;
	__be16 op;
	__u8 sha[6];
	__u8 spa[4]; /* as bytes: not aligned in the packet */
	__u8 tha[6];
	__u8 tpa[4];
};

/* Neighbour solicitation and advertisement, RFC 4861 sections 4.3 and 4.4. */
struct nd {
	__u8 type, code;
	__sum16 sum;
	__be32 flags;
	struct in6_addr target;
};

static __always_inline int parse_eth(struct cursor *c, struct ethhdr **eth)
{
	struct ethhdr *h = c->at;

	if ((void *)(h + 1) > c->end)
		return -1;
	c->at = h + 1;
	*eth = h;
	return bpf_ntohs(h->h_proto);
}

/* Leaves options to those who want them: the cursor stands behind the first 20
 * bytes.
 */
static __always_inline int parse_ipv4(struct cursor *c, struct iphdr **ip)
{
	struct iphdr *h = c->at;

	if ((void *)(h + 1) > c->end)
		return -1;
	c->at = h + 1;
	*ip = h;
	return h->protocol;
}

static __always_inline int parse_ipv6(struct cursor *c, struct ipv6hdr **ip)
{
	struct ipv6hdr *h = c->at;

	if ((void *)(h + 1) > c->end)
		return -1;
	c->at = h + 1;
	*ip = h;
	return h->nexthdr;
}

static __always_inline int parse_arp(struct cursor *c, struct arp **arp)
{
	struct arp *h = c->at;

	if ((void *)(h + 1) > c->end)
		return -1;
	if (h->hrd != bpf_htons(1) || h->pro != bpf_htons(ETH_P_IP) || h->hln != 6 || h->pln != 4)
		return -1;
	c->at = h + 1;
	*arp = h;
	return bpf_ntohs(h->op);
}

static __always_inline int parse_nd(struct cursor *c, struct nd **nd)
{
	struct nd *h = c->at;

	if ((void *)(h + 1) > c->end)
		return -1;
	c->at = h + 1;
	*nd = h;
	return h->type;
}

static __always_inline __be32 addr(const __u8 *a)
{
	__be32 v;

	__builtin_memcpy(&v, a, 4);
	return v;
}

static __always_inline int same_mac(const __u8 *a, const __u8 *b)
{
	return *(__u32 *)a == *(__u32 *)b && *(__u16 *)(a + 4) == *(__u16 *)(b + 4);
}

/* 00:00:5e:00:01:VHID, as VRRP's: RFC 5798 section 7.3. 0 if it is not one. */
static __always_inline __u32 vmac_vhid(const __u8 *mac)
{
	if (*(__u32 *)mac != bpf_htonl(0x00005e00) || mac[4] != 1)
		return 0;
	return mac[5];
}

static __always_inline void set_vmac(__u8 *mac, __u32 vhid)
{
	*(__u16 *)mac = 0; /* in an option it is aligned to two bytes only */
	*(__u16 *)(mac + 2) = bpf_htons(0x5e00);
	mac[4] = 1;
	mac[5] = vhid;
}

static __always_inline void set_mac(__u8 *to, const __u8 *from)
{
	*(__u16 *)to = *(__u16 *)from;
	*(__u16 *)(to + 2) = *(__u16 *)(from + 2);
	*(__u16 *)(to + 4) = *(__u16 *)(from + 4);
}

/* Folds a sum of 16-bit or 32-bit words to what the Internet checksum field of
 * the summed bytes would have to be: 0 when it was right already.
 */
static __always_inline __u16 fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

static __always_inline __u64 sum_words(const void *p, int words)
{
	const __u32 *w = p;
	__u64 sum = 0;

#pragma unroll
	for (int i = 0; i < words; i++)
		sum += w[i];
	return sum;
}

#endif
