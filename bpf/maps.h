/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
 *
 * The maps of one carpdev, shared by its programs, and the two questions that
 * everybody asks them: which role holds now, and whose is this address.
 */
#ifndef MAPS_H
#define MAPS_H

#include "device.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 256);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct vhid);
} vhids SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __be32);
	__type(value, struct owner);
} addr4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct in6_addr);
	__type(value, struct owner);
} addr6 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct share);
} shares SEC(".maps");

static __always_inline struct vhid *vhid_of(__u32 id)
{
	id &= 0xff;
	return bpf_map_lookup_elem(&vhids, &id);
}

/* Past its deadline every role is BACKUP, whoever forgot to say so. The word is
 * read once: role and deadline belong together.
 */
static __always_inline enum role role_of(__u32 id)
{
	struct vhid *v = vhid_of(id);
	__u64 word, now;

	if (!v)
		return ROLE_BACKUP;
	word = *(volatile __u64 *)&v->role;
	if ((word & 3) < ROLE_MASTER)
		return ROLE_BACKUP;
	now = bpf_ktime_get_boot_ns();
	return now < (word & ~3ULL) ? word & 3 : ROLE_BACKUP;
}

/* The vhid that a shared address belongs to, 0 for any other address. */
static __always_inline __u32 owner4(__be32 addr)
{
	struct owner *o = bpf_map_lookup_elem(&addr4, &addr);

	return o ? o->vhid & 0xff : 0;
}

static __always_inline __u32 owner6(const struct in6_addr *addr)
{
	struct in6_addr key = *addr;
	struct owner *o = bpf_map_lookup_elem(&addr6, &key);

	return o ? o->vhid & 0xff : 0;
}

#endif
