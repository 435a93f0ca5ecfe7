/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
 *
 * What the programs of every device have: counters, and what is known of the
 * device.
 */
#ifndef DEVICE_H
#define DEVICE_H

#define BPF_F_NO_PREALLOC 1
#define BPF_F_MMAPABLE	  (1 << 10)

#ifndef COUNTED
#define COUNTED 256 /* vhids */
#endif

/* Indexed by vhid * REASONS + reason. The key's type is there so that the names
 * of the reasons are in the object, where the loader reads them.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTED *REASONS);
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

static __always_inline struct port *this_port(void)
{
	__u32 key = 0;

	return bpf_map_lookup_elem(&ports, &key);
}

/* May another one pass? Who loses the race for the last place passes, too: the
 * one who won it has made it smaller.
 */
static __always_inline int within(__u64 *due, __u64 now, __u64 every, __u64 burst)
{
	__u64 was = *(volatile __u64 *)due;
	__u64 at = was > now ? was : now;

	if (at - now > burst)
		return 0;
	__sync_val_compare_and_swap(due, was, at + every);
	return 1;
}

#endif
