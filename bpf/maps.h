/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
 *
 * The maps of one carpdev, shared by its programs, and the two questions that
 * everybody asks them: which role holds now, and whose is this address.
 */
#ifndef MAPS_H
#define MAPS_H

#define BPF_F_NO_PREALLOC 1
#define BPF_F_MMAPABLE	  (1 << 10)

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

/* Indexed by vhid * REASONS + reason. The key's type is there so that the names
 * of the reasons are in the object, where the loader reads them.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 256 * REASONS);
	__type(key, enum reason);
	__type(value, __u64);
} counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct port);
} ports SEC(".maps");

static __always_inline void count(__u32 vhid, enum reason why)
{
	__u32 key = vhid * REASONS + why;
	__u64 *n = bpf_map_lookup_elem(&counters, &key);

	if (n)
		(*n)++; /* per CPU and in softirq: no atomics */
}

/* The only way out: every frame leaves with a reason, every reason but foreign
 * is counted.
 */
static __always_inline int verdict(__u32 vhid, enum reason why, int action)
{
	if (why != R_FOREIGN)
		count(vhid, why);
	return action;
}

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

static __always_inline struct port *this_port(void)
{
	__u32 key = 0;

	return bpf_map_lookup_elem(&ports, &key);
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
