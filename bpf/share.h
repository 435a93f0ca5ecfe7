/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
 *
 * Load sharing: several vhids have one address, and each of them has its own
 * master. Which of them a neighbour or a frame belongs to, every node computes
 * alike.
 */
#ifndef SHARE_H
#define SHARE_H

/* The vhids that share the addresses of this one, NULL if it has them alone. */
static __always_inline struct share *share_of(__u32 vhid)
{
	struct vhid *v = vhid_of(vhid);

	vhid &= 0xff;
	return v && v->flags & VHID_LEADER ? bpf_map_lookup_elem(&shares, &vhid) : NULL;
}

/* The role that this node has for an address: of all vhids that share it, the one
 * that may most.
 */
__noinline int role_for(__u32 vhid)
{
	struct share *s = share_of(vhid);
	int best = ROLE_BACKUP;

	if (!s)
		return role_of(vhid);
	for (__u32 i = 0; i < SHARE_MAX && i < s->count; i++) {
		int r = role_of(s->vhid[i]);

		if (r == ROLE_MASTER)
			return r;
		if (r == ROLE_DRAIN)
			best = r;
	}
	return best;
}

/* One round of Bob Jenkins' mix, as the macro of ip_carp.c that is called so. */
#define MIX(a, b, c, shift_a, shift_b, shift_c)                                                              \
	do {                                                                                                 \
		a -= b;                                                                                      \
		a -= c;                                                                                      \
		a ^= c >> shift_a;                                                                           \
		b -= c;                                                                                      \
		b -= a;                                                                                      \
		b ^= a << shift_b;                                                                           \
		c -= a;                                                                                      \
		c -= b;                                                                                      \
		c ^= b >> shift_c;                                                                           \
	} while (0)

/* carp_hash in ip_carp.c of NetBSD, and of OpenBSD until 5.8: little-endian words
 * of the neighbour's MAC under a key from the password.
 */
static __always_inline __u32 carp_hash(const struct share *s, const __u8 *mac)
{
	__u32 a = 0x9e3779b9, b = s->key[0], c = s->key[1];

	a += mac[0] | mac[1] << 8 | mac[2] << 16 | (__u32)mac[3] << 24;
	b += mac[4] | mac[5] << 8;
	MIX(a, b, c, 13, 8, 13);
	MIX(a, b, c, 12, 16, 5);
	MIX(a, b, c, 3, 10, 15);
	return c;
}

static __always_inline __u32 nth(const struct share *s, __u32 hash)
{
	__u32 n = s->count;

	return n ? s->vhid[(hash % n) & (SHARE_MAX - 1)] : 0;
}

static __always_inline __u32 fold6(const struct in6_addr *a)
{
	return a->in6_u.u6_addr32[0] ^ a->in6_u.u6_addr32[1] ^ a->in6_u.u6_addr32[2] ^ a->in6_u.u6_addr32[3];
}

/* The vhid that answers a neighbour who asks for an address of this one; ip is
 * the neighbour's own address, folded to a word. Where every node receives all
 * frames anybody may say so, and the leader does, as in carp_iamatch.
 */
static __always_inline __u32 answerer(const struct share *s, __u32 vhid, const __u8 *mac, __be32 ip)
{
	if (!s || s->flags & SHARE_FRAMES)
		return vhid;
	return nth(s, s->flags & SHARE_SOURCE_IP ? bpf_ntohl(ip) : carp_hash(s, mac));
}

/* The vhid whose master keeps a packet, as in carp_lsdrop; 0 for what is not
 * shared. Both directions of a flow, and all its fragments, have one keeper.
 */
static __always_inline __u32 keeper(const struct share *s, void *at, void *end, int proto)
{
	if (proto == ETH_P_IP) {
		struct iphdr *h = at;

		if ((void *)(h + 1) > end || *(__u8 *)&h->daddr >= 224)
			return 0;
		return nth(s, bpf_ntohl(h->saddr ^ h->daddr));
	}
	if (proto == ETH_P_IPV6) {
		struct ipv6hdr *h = at;

		if ((void *)(h + 1) > end || h->daddr.in6_u.u6_addr8[0] == 0xff)
			return 0;
		return nth(s, bpf_ntohl(fold6(&h->saddr) ^ fold6(&h->daddr)));
	}
	return 0;
}

/* 01:00:5e:00:01:VHID, where every node receives what is sent to the group. 0 if
 * it is not one.
 */
static __always_inline __u32 mcast_vhid(const __u8 *mac)
{
	if (*(__u32 *)mac != bpf_htonl(0x01005e00) || mac[4] != 1)
		return 0;
	return mac[5];
}

/* The MAC that neighbours are told. */
static __always_inline void set_told(__u8 *mac, const struct share *s, __u32 vhid)
{
	set_vmac(mac, vhid);
	if (s && s->flags & SHARE_MULTICAST)
		mac[0] = 1;
}

#endif
