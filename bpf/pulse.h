/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
 *
 * Pulses: asks are answered and claims decided here, without user space, so that
 * an answer says what holds and not what a process thinks. docs/pulses.md has the
 * design. The maps are one set for all devices of a node.
 */
#ifndef PULSE_H
#define PULSE_H

#define ETH_P_PULSE 0x88b5

#define PULSE_FRAME (sizeof(struct ethhdr) + sizeof(struct pulse))

#define PULSE_DRAINS 100000000ULL  /* ns in which frames in flight are taken */
#define PULSE_FRESH  1000000000ULL /* ns after which nonce and challenge are old */
#define PULSE_EVERY  1000000ULL	   /* ns between asks that are not newer, lasting */
#define PULSE_BURST  (64 * PULSE_EVERY)
#define PULSE_STEP   (1ULL << 31) /* terms a claim may be ahead: it is noted as 32 bits */
#define PULSE_TRIES  8

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct pulse_session);
} pulse_sessions SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct pulse_group);
} pulse_groups SEC(".maps");

/* The vhids of every carpdev: the program of the sync device has none of its own.
 * Linux 6.1 wants the maps that are put in to have the types that are named here;
 * an object whose other maps do not have them cannot name them, and makes no maps.
 */
#ifdef MAPS_H
#define PULSE_VHID __type(value, struct vhid)
#else
#define PULSE_VHID __uint(value_size, sizeof(struct vhid))
#endif

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, PULSE_SLOTS);
	__type(key, __u32);
	__array(
		values, struct {
			__uint(type, BPF_MAP_TYPE_ARRAY);
			__uint(max_entries, 256);
			__uint(map_flags, BPF_F_MMAPABLE);
			__type(key, __u32);
			PULSE_VHID;
		});
} pulse_ports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, PULSE_PATHS);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct pulse_path);
} pulse_paths SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 64 * 1024);
} pulse_events SEC(".maps");

/* What a program does about a pulse. */
enum pulse_does {
	PULSE_ANSWERS = 1, /* asks and claims */
	PULSE_HEARS = 2,   /* notes what comes back */
	PULSE_OF_SYNC = 4, /* it is the one of the sync device */
};

enum pulse_action { PULSE_PASS, PULSE_DROP, PULSE_BACK };

/* A pulse and the key that it is signed with. */
struct pulse_signed {
	__u64 key[2];
	struct pulse p;
};

#define SIP_ROTL(x, n) ((x) << (n) | (x) >> (64 - (n)))

static __always_inline void sip_round(__u64 *v)
{
	v[0] += v[1];
	v[2] += v[3];
	v[1] = SIP_ROTL(v[1], 13) ^ v[0];
	v[3] = SIP_ROTL(v[3], 16) ^ v[2];
	v[0] = SIP_ROTL(v[0], 32);
	v[2] += v[1];
	v[0] += v[3];
	v[1] = SIP_ROTL(v[1], 17) ^ v[2];
	v[3] = SIP_ROTL(v[3], 21) ^ v[0];
	v[2] = SIP_ROTL(v[2], 32);
}

/* SipHash-2-4 of what is signed: Aumasson and Bernstein, "SipHash: a fast
 * short-input PRF", 2012, section 2. A function of its own: the verifier walks
 * through it once.
 */
__noinline __u64 pulse_mac(const struct pulse_signed *s)
{
	const __u64 *word;
	__u64 v[4], m;

	if (!s)
		return 0;
	word = (const __u64 *)&s->p;
	v[0] = s->key[0] ^ 0x736f6d6570736575ULL;
	v[1] = s->key[1] ^ 0x646f72616e646f6dULL;
	v[2] = s->key[0] ^ 0x6c7967656e657261ULL;
	v[3] = s->key[1] ^ 0x7465646279746573ULL;
#pragma unroll
	for (int i = 0; i <= PULSE_SIGNED; i++) {
		m = i < PULSE_SIGNED ? word[i] : 8ULL * PULSE_SIGNED << 56;
		v[3] ^= m;
		sip_round(v);
		sip_round(v);
		v[0] ^= m;
	}
	v[2] ^= 0xff;
#pragma unroll
	for (int i = 0; i < 4; i++)
		sip_round(v);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}

/* The group's term: the daemon's, or that of a claim that it has yet to hear of. */
static __always_inline __u64 pulse_term(__u64 term, __u64 claim)
{
	__s32 ahead = (__u32)claim - (__u32)term;

	return claim >> 32 && ahead > 0 ? term + (__u32)ahead : term;
}

/* Takes the role from whoever has it. The word of who has none changes as well:
 * its daemon may be about to swap it. A claim that comes again finds the work done,
 * or does what is left. 0 if the word would not hold still.
 */
static __always_inline int pulse_drain(struct vhid *v, __u64 now, int *again)
{
	__u64 was, to;

	for (int i = 0; i < PULSE_TRIES; i++) {
		was = *(volatile __u64 *)&v->role;
		if (*again && (was & 3) != ROLE_MASTER)
			return 1;
		if ((was & 3) >= ROLE_MASTER && now < (was & ~3ULL))
			to = ((now + PULSE_DRAINS) & ~3ULL) | ROLE_DRAIN;
		else
			to = (now & ~3ULL) | ((was & 3) == ROLE_INIT ? ROLE_INIT : ROLE_BACKUP);
		if (__sync_val_compare_and_swap(&v->role, was, to) == was) {
			*again = 0;
			return 1;
		}
	}
	return 0;
}

/* Who claims a term above the group's gets it, once; the same claim may come again,
 * by another device or because its answer was lost.
 */
static __always_inline int pulse_claimed(struct vhid *v, const struct pulse *p, __u64 now, __u64 *had,
					 int *again)
{
	__u64 term = *(volatile __u64 *)&v->term, claim = *(volatile __u64 *)&v->claim;
	__u64 claimed = bpf_be64_to_cpu(p->term), found;
	__u64 mine = (__u64)p->session << 32 | (__u32)claimed;

	*had = pulse_term(term, claim);
	if ((__u32)(now >> 16) - bpf_ntohl(p->challenge) > PULSE_FRESH >> 16)
		return 0;
	*again = claim == mine && *had == claimed;
	if (!*again) {
		if (claimed <= *had || claimed - term >= PULSE_STEP)
			return 0;
		found = __sync_val_compare_and_swap(&v->claim, claim, mine);
		if (found != claim && found != mine)
			return 0;
	}
	return pulse_drain(v, now, again);
}

__noinline int pulse_tell(const struct pulse_event *e)
{
	return e ? bpf_ringbuf_output(&pulse_events, (void *)e, sizeof(*e), 0) : -1;
}

/* The answer that is in s goes back to where the frame came from. */
static __always_inline int pulse_back(struct ethhdr *eth, struct pulse *w, struct pulse_signed *s)
{
	__u8 own[6];

	s->p.mac = pulse_mac(s);
	*w = s->p;
	set_mac(own, eth->h_dest);
	set_mac(eth->h_dest, eth->h_source);
	set_mac(eth->h_source, own);
	return PULSE_BACK;
}

static __always_inline int pulse_asked(struct ethhdr *eth, struct pulse *w, struct pulse_signed *s, int does,
				       __u32 *vhid, enum reason *why)
{
	__u64 now = bpf_ktime_get_boot_ns(), nonce = bpf_be64_to_cpu(s->p.nonce), had = 0;
	__u32 key = s->p.session, group = s->p.group, slot, of, fresh = 0;
	struct pulse_session *k = bpf_map_lookup_elem(&pulse_sessions, &key);
	struct pulse_group *g;
	struct vhid *v;
	void *port;
	__u64 word, until, stamp, age;
	int claim = s->p.kind == PULSE_CLAIM, again = 0;

	*why = R_PULSE_STRANGER;
	if (!k)
		return PULSE_PASS;
	s->key[0] = k->key[0];
	s->key[1] = k->key[1];
	*why = R_PULSE_BAD;
	if (s->p.mac != pulse_mac(s))
		return PULSE_DROP;
	*why = R_PULSE_STRANGER;
	g = bpf_map_lookup_elem(&pulse_groups, &group);
	if (!g)
		return PULSE_DROP;
	slot = g->slot;
	of = g->vhid & 0xff;
	port = bpf_map_lookup_elem(&pulse_ports, &slot);
	if (!port)
		return PULSE_DROP;
	v = bpf_map_lookup_elem(port, &of);
	if (!v || !(v->flags & VHID_CONFIGURED))
		return PULSE_DROP;
#ifdef MAPS_H
	if (v != vhid_of(of))
		return PULSE_DROP; /* of another carpdev: what does it here? */
#endif
	*vhid = of;

	/* Only who has the key makes newer ones. The others may be late, or not
	 * from the one that has it.
	 */
	slot = does & PULSE_OF_SYNC ? PULSE_SLOTS : slot & (PULSE_SLOTS - 1);
	word = *(volatile __u64 *)&k->newest[slot];
	if (nonce > word) {
		__sync_val_compare_and_swap(&k->newest[slot], word, nonce);
		fresh = 1;
	} else if (!within(&k->due, now, PULSE_EVERY, PULSE_BURST)) {
		*why = R_PULSE_LIMIT;
		return PULSE_DROP;
	}

	*why = R_PULSE_ASKED;
	s->p.kind = PULSE_ANSWER;
	word = *(volatile __u64 *)&v->role;
	if (claim) {
		struct pulse_event e = {
			.at = now,
			.term = bpf_be64_to_cpu(s->p.term),
			.session = bpf_ntohl(s->p.session),
			.group = bpf_ntohl(s->p.group),
			.slot = slot,
			.vhid = of,
		};

		e.role = (word & 3) >= ROLE_MASTER && now >= (word & ~3ULL) ? ROLE_BACKUP : word & 3;
		s->p.kind = PULSE_REFUSAL;
		*why = R_PULSE_REFUSED;
		if (pulse_claimed(v, &s->p, now, &had, &again)) {
			s->p.kind = PULSE_ACK;
			*why = R_PULSE_CLAIMED;
		}
		e.had = had;
		e.why = *why;
		if (!again && (fresh || *why == R_PULSE_CLAIMED))
			pulse_tell(&e);
		word = *(volatile __u64 *)&v->role;
	}
	if (s->p.kind != PULSE_ACK)
		s->p.term = bpf_cpu_to_be64(
			pulse_term(*(volatile __u64 *)&v->term, *(volatile __u64 *)&v->claim));

	until = word & ~3ULL;
	s->p.lease = 0;
	if ((word & 3) >= ROLE_MASTER && now < until) {
		until = (until - now) / 1000;
		s->p.lease = bpf_htonl(until > 0xffffffff ? 0xffffffff : until);
	} else if ((word & 3) != ROLE_INIT) {
		word = ROLE_BACKUP;
	}
	s->p.role = word & 3;
	s->p.demotion = v->demotion > 255 ? 255 : v->demotion;
	stamp = *(volatile __u64 *)&v->stamp;
	age = now > stamp ? (now - stamp) / 1000000 : 0;
	s->p.age = bpf_htons(age > 0xffff ? 0xffff : age);
	s->p.challenge = bpf_htonl(now >> 16);
	return pulse_back(eth, w, s);
}

/* Notes what is newer than what is there. Who finds another CPU writing leaves it
 * to that one.
 */
static __always_inline enum reason pulse_note(struct pulse_heard *h, const struct pulse *p, __u64 now)
{
	__u64 seq = *(volatile __u64 *)&h->seq, nonce = bpf_be64_to_cpu(p->nonce);
	enum reason why = R_PULSE_OLD;

	if (seq & 1 || now - nonce > PULSE_FRESH)
		return why;
	if (__sync_val_compare_and_swap(&h->seq, seq, seq + 1) != seq)
		return why;
	if (nonce > h->nonce) {
		h->at = now;
		h->nonce = nonce;
		h->term = bpf_be64_to_cpu(p->term);
		h->age = bpf_ntohs(p->age) * 1000000ULL;
		h->lease = bpf_ntohl(p->lease) * 1000ULL;
		h->kind = p->kind;
		h->role = p->role;
		h->demotion = p->demotion;
		h->challenge = bpf_ntohl(p->challenge);
		h->session = bpf_ntohl(p->session);
		why = R_PULSE_ANSWER;
	}
	/* A barrier on every machine, as the one before. */
	__sync_val_compare_and_swap(&h->seq, seq + 1, seq + 2);
	return why;
}

static __always_inline int pulse_heard(struct pulse_signed *s, enum reason *why)
{
	__u32 key = bpf_ntohs(s->p.path);
	struct pulse_path *path = bpf_map_lookup_elem(&pulse_paths, &key);
	__u32 session = bpf_ntohl(s->p.session);

	*why = R_PULSE_STRANGER;
	if (!path || !session || path->session != session || path->group != bpf_ntohl(s->p.group))
		return PULSE_DROP;
	s->key[0] = path->key[0];
	s->key[1] = path->key[1];
	*why = R_PULSE_BAD;
	if (s->p.mac != pulse_mac(s))
		return PULSE_DROP;
	*why = pulse_note(s->p.kind == PULSE_ANSWER ? &path->answer : &path->claim, &s->p,
			  bpf_ktime_get_boot_ns());
	return PULSE_DROP;
}

/* Is the frame a pulse, and for this device? One for a virtual MAC is none: its
 * answer would come from there.
 */
static __always_inline int is_pulse(void *data, void *end)
{
	struct ethhdr *eth = data;
	struct port *p;

	if ((void *)(eth + 1) > end || eth->h_proto != bpf_htons(ETH_P_PULSE))
		return 0;
	p = this_port();
	return p && same_mac(eth->h_dest, p->mac) && !(eth->h_source[0] & 1);
}

/* What becomes of the frame, enum pulse_action; counted. */
static __always_inline int pulse(void *data, void *end, __u32 len, int does)
{
	struct ethhdr *eth = data;
	struct pulse *w = (void *)(eth + 1);
	struct pulse_signed s;
	enum reason why = R_PULSE_BAD;
	__u32 vhid = 0;
	int action = PULSE_PASS;

	if ((void *)(w + 1) > end || len != PULSE_FRAME || w->version != PULSE_VERSION)
		goto out;
	s.p = *w;
	if (s.p.kind == PULSE_ASK || s.p.kind == PULSE_CLAIM) {
		why = R_HANDED_UP;
		if (does & PULSE_ANSWERS)
			action = pulse_asked(eth, w, &s, does, &vhid, &why);
	} else if (s.p.kind >= PULSE_ANSWER && s.p.kind <= PULSE_REFUSAL) {
		why = R_FOREIGN;
		if (does & PULSE_HEARS)
			action = pulse_heard(&s, &why);
	}
out:
	return verdict(does & PULSE_OF_SYNC ? 0 : vhid, why, action);
}

#endif
