/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
 *
 * What costs an attacker nothing must not cost us a wake-up. Adverts that are
 * certainly false (neither digest nor trailer are of our keys; not newer than
 * what their sender was believed) end here, and of the rest only so many pass.
 * User space judges all that pass once more: this is a filter, not the authority.
 */
#ifndef SHIELD_H
#define SHIELD_H

/* What a program can do about adverts. */
enum shielding { LIMIT, VERIFY };

enum trailer { NO_TRAILER, TRAILER_BAD, TRAILER_GOOD };

/* Was an advert heard before? */
enum repeat { NEW, SAME, ALTERED };

/* What is known of an advert's origin. */
enum proof { UNPROVEN, BY_NOTHING, BY_DIGEST, BY_TRAILER };

#define SAMPLE_EVERY 1000000000ULL /* ns, per vhid and reason */

/* Of a counter: the bits that all of a node's have in common, and how far behind
 * its newest one is still one of its own. As tag and counterWindow of carp in Go.
 */
#define COUNTER_TAG    0x7fffULL
#define COUNTER_WINDOW (1ULL << 56)

#define REMIND_EVERY 1000000000ULL /* ns, between adverts that are older than the last one */

/* Hashes that are not preallocated: a reader keeps what it has found, whole,
 * while user space puts something else in its place.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct shield);
} shields SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct known);
} knowns SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 256);
	__type(key, __u32);
	__type(value, struct bucket);
} buckets SEC(".maps");

/* The adverts that have been heard, found by what their sender computed last: the
 * digest, or the MAC of the trailer. The value is the beginning of the header, which
 * a digest does not cover. Who knows no key cannot make a new one.
 */
struct echo {
	__u64 proof;
	__u64 vhid;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct echo);
	__type(value, __u64);
} echoes SEC(".maps");

/* When a reason was last sampled, indexed as the counters. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 256 * REASONS);
	__type(key, __u32);
	__type(value, __u64);
} sampled SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 64 * 1024);
} samples SEC(".maps");

/* In place of loops that stop at the first difference: constant time. */
static __always_inline __u32 differ(const __u8 *a, const __u32 *h, int words)
{
	__u32 d = 0;

#pragma unroll
	for (int i = 0; i < words; i++)
		d |= bpf_ntohl(*(const __u32 *)(a + 4 * i)) ^ h[i];
	return d;
}

/* Does the digest of the advert in the scratch belong to one of our keys? */
__noinline int digest_right(__u32 vhid)
{
	struct scratch *s = this_scratch();
	struct shield *k = bpf_map_lookup_elem(&shields, &vhid);
	int right = 0;

	if (!s || !k)
		return -1;
	for (int v = 0; v < SHIELD_DIGESTS; v++) {
		struct digest_key *key = &k->digest[v];
		__u32 at = key->at & 63;

		if (v >= k->digests)
			break;
		__builtin_memcpy(s->h, key->inner, sizeof(key->inner));
		__builtin_memcpy(s->block, key->tail, sizeof(s->block));
#pragma unroll
		for (int i = 0; i < 8; i++)
			s->block[at + i] = s->sample.data[8 + i];
		load_block(s, s->block);
		sha1();
		if (key->blocks > 1) {
			load_block(s, s->block + 64);
			sha1();
		}
		load_outer(s, 5);
		__builtin_memcpy(s->h, key->outer, sizeof(key->outer));
		sha1();
		right |= !differ(s->sample.data + 16, s->h, 5);
	}
	return right;
}

static __always_inline int trailer_of(const struct scratch *s, const struct trailer_key *key)
{
	const __u8 *t = s->sample.data + HEADER_LEN;

	return s->sample.have == HEADER_LEN + TRAILER_LEN && t[0] == 'X' && t[1] == 'C' && t[2] == 1 &&
	       t[3] == key->id;
}

/* Is there a trailer that we could check? */
static __always_inline int trailer_form(const struct scratch *s, const struct shield *k)
{
	for (int i = 0; i < SHIELD_TRAILERS; i++)
		if (i < k->trailers && trailer_of(s, &k->trailer[i]))
			return 1;
	return 0;
}

/* Does the MAC, HMAC-SHA256 cut off, belong to 66 bytes: first and two more? */
static __always_inline int mac_right(struct scratch *s, const struct trailer_key *key, const __u8 *first,
				     __u32 two, const __u8 *mac)
{
	__builtin_memcpy(s->h, key->inner, sizeof(s->h));
	load_block(s, first);
	sha256();
	__builtin_memset(s->w, 0, sizeof(s->w));
	s->w[0] = two << 16 | 0x8000;
	s->w[15] = (64 + HEADER_LEN + TRAILER_SIGNED) * 8;
	sha256();
	load_outer(s, 8);
	__builtin_memcpy(s->h, key->outer, sizeof(s->h));
	sha256();
	__builtin_memcpy(s->block, mac, TRAILER_MAC); /* which is not aligned */
	return !differ(s->block, s->h, TRAILER_MAC / 4);
}

/* One of enum trailer: of another version, or of a key that we do not have, it
 * says nothing.
 */
__noinline int trailer_right(__u32 vhid)
{
	struct scratch *s = this_scratch();
	struct shield *k = bpf_map_lookup_elem(&shields, &vhid);
	const __u8 *t;

	if (!s || !k)
		return NO_TRAILER;
	t = s->sample.data + HEADER_LEN;
	for (int i = 0; i < SHIELD_TRAILERS; i++) {
		struct trailer_key *key = &k->trailer[i];

		if (i >= k->trailers || !trailer_of(s, key))
			continue;
		return mac_right(s, key, s->sample.data, s->sample.data[64] << 8 | s->sample.data[65],
				 t + TRAILER_SIGNED)
			       ? TRAILER_GOOD
			       : TRAILER_BAD;
	}
	return NO_TRAILER;
}

/* The same for a reminder, which says its key elsewhere. */
__noinline int reminder_right(__u32 vhid)
{
	struct scratch *s = this_scratch();
	struct shield *k = bpf_map_lookup_elem(&shields, &vhid);

	if (!s || !k)
		return NO_TRAILER;
	for (int i = 0; i < SHIELD_TRAILERS; i++) {
		struct trailer_key *key = &k->trailer[i];

		if (i >= k->trailers || key->id != s->sample.data[2])
			continue;
		__builtin_memset(s->block, 0, 64);
		__builtin_memcpy(s->block, s->sample.data, REMINDER_SIGNED);
		return mac_right(s, key, s->block, 0, s->sample.data + REMINDER_SIGNED) ? TRAILER_GOOD
											: TRAILER_BAD;
	}
	return NO_TRAILER;
}

static __always_inline __u64 be64(const __u8 *p)
{
	return (__u64)bpf_ntohl(*(const __u32 *)p) << 32 | bpf_ntohl(*(const __u32 *)(p + 4));
}

/* Is the advert, which names its node, one that we have seen, or sent? An older one
 * than the last passes now and then: its node may have lost its storage, and user
 * space will tell it.
 */
static __always_inline enum reason seen(const struct known *known, const __u8 *advert, struct bucket *b,
					enum repeat repeat, __u64 now)
{
	__u64 node = be64(advert + HEADER_LEN + 4), epoch = be64(advert + HEADER_LEN + 12);
	__u64 counter = be64(advert + 8);

	for (int i = 0; i < SHIELD_NODES; i++) {
		const struct mark *m = &known->node[i];

		if (i >= known->nodes)
			break;
		if (m->node != node)
			continue;
		if (epoch > m->epoch || (epoch == m->epoch && counter > m->counter))
			return R_ADVERT;
		if (m->own)
			return R_LOOP;
		if (repeat == NEW && (epoch < m->epoch || counter < m->counter) &&
		    within(&b->old, now, REMIND_EVERY, 0))
			return R_ADVERT;
		return R_REPLAY;
	}
	return R_ADVERT;
}

/* Is the advert, whose trailer is gone or broken, one of a node of ours once? */
static __always_inline int stripped(const struct known *known, const __u8 *advert)
{
	__u64 counter = be64(advert + 8);

	for (int i = 0; i < SHIELD_NODES; i++) {
		const struct mark *m = &known->node[i];

		if (i >= known->nodes)
			break;
		if (m->counter && !((counter ^ m->node) & COUNTER_TAG) &&
		    m->counter - counter < COUNTER_WINDOW)
			return 1;
	}
	return 0;
}

/* The bucket of a source: those that have been believed have one each. */
static __always_inline __u64 *bucket_of(struct bucket *b, const struct known *known,
					const struct in6_addr *from)
{
	for (int i = 0; known && i < SHIELD_PEERS; i++) {
		const __u32 *p = known->peer[i].in6_u.u6_addr32, *a = from->in6_u.u6_addr32;

		if (i >= known->peers)
			break;
		if (p[0] == a[0] && p[1] == a[1] && p[2] == a[2] && p[3] == a[3])
			return &b->peer[i];
	}
	return &b->stranger;
}

/* Who knows the keys has made the advert in the scratch, or not: enum proof. A
 * right trailer is enough, whatever the digest says.
 */
__noinline int proof(__u32 vhid)
{
	struct shield *k = bpf_map_lookup_elem(&shields, &vhid);

	if (!k || !k->digests)
		return UNPROVEN;
	if (trailer_right(vhid) == TRAILER_GOOD)
		return BY_TRAILER;
	return digest_right(vhid) == 1 ? BY_DIGEST : BY_NOTHING;
}

/* Was the advert in the scratch heard before? What nothing vouches for is noted
 * when it passes only, or anybody could make us forget the rest.
 */
static __always_inline enum repeat repeated(struct scratch *s, __u32 vhid, __u32 by, struct echo *e)
{
	__u64 head = be64(s->sample.data), *was;

	__builtin_memcpy(&e->proof, s->sample.data + (by == BY_TRAILER ? HEADER_LEN + TRAILER_SIGNED : 16),
			 8);
	e->vhid = vhid;
	was = bpf_map_lookup_elem(&echoes, e);
	if (was)
		return *was == head ? SAME : ALTERED;
	if (by != UNPROVEN)
		bpf_map_update_elem(&echoes, e, &head, 0);
	return NEW;
}

/* The verdict on the advert in the scratch, which is well-formed. Each kind has a
 * bucket of its own: of what an attacker has captured and says again, however
 * often, and as whomever, nothing is at the cost of what is new.
 */
__noinline int judge(__u32 vhid, __u32 by)
{
	struct scratch *s = this_scratch();
	struct shield *k = bpf_map_lookup_elem(&shields, &vhid);
	struct known *known = bpf_map_lookup_elem(&knowns, &vhid);
	struct bucket *b = bpf_map_lookup_elem(&buckets, &vhid);
	enum reason why = R_ADVERT;
	__u64 now = bpf_ktime_get_ns(), head;
	enum repeat repeat;
	struct echo e;

	if (!s || !k || !b)
		return R_ADVERT;
	if (by == BY_NOTHING)
		return R_BADAUTH;
	repeat = repeated(s, vhid, by, &e);
	if (known && (by == BY_TRAILER || (by == UNPROVEN && trailer_form(s, k))))
		why = seen(known, s->sample.data, b, repeat, now);
	else if (known && by == BY_DIGEST && stripped(known, s->sample.data))
		why = R_REPLAY;
	else if (by == BY_DIGEST && k->flags & SHIELD_ENFORCE)
		why = R_BADTRAILER;
	if (why != R_ADVERT)
		return why;
	if (repeat != NEW) /* OpenBSD's adverts are all the same */
		return within(repeat == SAME ? &b->same : &b->altered, now, k->every, k->burst) ? R_ADVERT
												: R_REPLAY;
	if (!within(by == BY_TRAILER ? &b->signed_ : bucket_of(b, known, &s->sample.from), now, k->every,
		    k->burst))
		return R_RATELIMIT;
	if (by == UNPROVEN) {
		head = be64(s->sample.data);
		bpf_map_update_elem(&echoes, &e, &head, 0);
	}
	return R_ADVERT;
}

/* The verdict on what has protocol 112, the number of a vhid and another version or
 * type than an advert, in the scratch: by the right MAC a reminder, if it has one.
 */
__noinline int judge_foreign(__u32 vhid, __u32 mac)
{
	struct scratch *s = this_scratch();
	struct shield *k = bpf_map_lookup_elem(&shields, &vhid);
	struct known *known = bpf_map_lookup_elem(&knowns, &vhid);
	struct bucket *b = bpf_map_lookup_elem(&buckets, &vhid);
	__u64 now = bpf_ktime_get_ns(), epoch, counter;

	if (!s || !k || !b)
		return R_ADVERT_VERSION;
	for (int i = 0; known && mac != NO_TRAILER && i < SHIELD_NODES; i++) {
		const struct mark *m = &known->node[i];

		if (i >= known->nodes)
			break;
		if (!m->own || m->node != be64(s->sample.data + 8))
			continue;
		if (mac == TRAILER_BAD)
			return R_BADAUTH;
		epoch = be64(s->sample.data + 16);
		counter = be64(s->sample.data + 24);
		if (epoch < m->epoch || (epoch == m->epoch && counter <= m->counter))
			return R_REPLAY; /* we know */
		return within(&b->reminder, now, k->every, k->burst) ? R_REMINDER : R_RATELIMIT;
	}
	return within(&b->foreign, now, k->every, k->burst) ? R_ADVERT_VERSION : R_RATELIMIT;
}

/* The header's checksum covers 36 bytes (the BSDs) or the whole payload (ucarp
 * sums what it sends): either is right. A payload that did not fit into the scratch
 * is left to user space.
 */
static __always_inline int advert_sum(const struct scratch *s)
{
	__u64 sum = sum_words(s->sample.data, HEADER_LEN / 4);

	if (!fold(sum) || s->sample.len > sizeof(s->sample.data))
		return 0;
	return fold(sum + sum_words(s->sample.data + HEADER_LEN, TRAILER_LEN / 4)) ? -1 : 0;
}

/* Shows user space the advert in the scratch, once a second. */
__noinline int take_sample(__u32 vhid, __u32 why)
{
	__u32 key = (vhid & 0xff) * REASONS + why;
	__u64 *last = bpf_map_lookup_elem(&sampled, &key);
	struct scratch *s = this_scratch();
	struct vhid *v = vhid_of(vhid);
	__u64 now = bpf_ktime_get_boot_ns(), was;

	if (!s || !last || !v || !(v->flags & VHID_CONFIGURED))
		return -1;
	was = *(volatile __u64 *)last;
	if (was && now - was < SAMPLE_EVERY)
		return 0;
	if (__sync_val_compare_and_swap(last, was, now) != was)
		return 0;
	s->sample.at = now;
	s->sample.why = why;
	return bpf_ringbuf_output(&samples, &s->sample, sizeof(s->sample), 0);
}

/* Puts an advert, of which form says why, into the scratch, which weigh gives
 * back; 0 if there is nothing to judge.
 */
static __always_inline struct scratch *note(void *ctx, enum reason why, const struct payload *p,
					    struct ethhdr *eth)
{
	struct scratch *s;
	__u32 n = p->len < p->have ? p->len : p->have;

	if (why == R_ADVERT_VHID || why == R_RUNT)
		return 0;
	s = this_scratch();
	if (!s || s->busy)
		return 0;
	s->sample.why = why;
	s->sample.len = p->len;
	s->sample.ttl = p->ttl;
	s->sample.from = p->from;
	set_mac(s->sample.mac, eth->h_source);
	if ((__s32)n < ADVERT_LEAST)
		n = ADVERT_LEAST;
	if (n > sizeof(s->sample.data))
		n = sizeof(s->sample.data);
	s->sample.have = n;
	__builtin_memset(s->sample.data, 0, sizeof(s->sample.data));
	if (load_bytes(ctx, p->off, s->sample.data, n))
		return 0;
	s->busy = 1;
	return s;
}

/* Is a reminder in the scratch, and who vouches for it? Without cryptography we take
 * its word, and user space does not.
 */
static __always_inline enum trailer reminder(struct scratch *s, __u32 vhid, enum shielding shielding)
{
	if (s->sample.data[0] != REMINDER_VERSION || s->sample.have != REMINDER_LEN)
		return NO_TRAILER;
	return shielding == VERIFY ? reminder_right(vhid) : TRAILER_GOOD;
}

/* The last word on the advert in the scratch. What led here is read out of memory,
 * where all of it looks the same to the verifier, and the two below are functions:
 * it walks through this but once.
 */
static __always_inline int weigh(__u32 vhid, enum shielding shielding)
{
	struct scratch *s = this_scratch();
	enum reason why, seen; /* seen: what is sampled */

	if (!s)
		return R_ADVERT;
	why = s->sample.why;
	if (why == R_ADVERT && advert_sum(s))
		why = R_BADSUM;
	seen = why;
	if (why == R_ADVERT) {
		why = seen = judge(vhid, shielding == VERIFY ? proof(vhid) : UNPROVEN);
	} else if (why == R_ADVERT_VERSION) {
		/* VRRP has its number in the same place. */
		vhid = s->sample.data[1];
		why = judge_foreign(vhid, reminder(s, vhid, shielding));
		if (why != R_RATELIMIT)
			seen = why;
	}
	if (seen != R_ADVERT && seen != R_REMINDER)
		take_sample(vhid, seen);
	s->busy = 0;
	return why;
}

__noinline int weigh_proof(__u32 vhid)
{
	return weigh(vhid, VERIFY);
}

__noinline int weigh_number(__u32 vhid)
{
	return weigh(vhid, LIMIT);
}

#endif
