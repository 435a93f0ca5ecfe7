/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
 *
 * What no CARP implementation would send never gets past here.
 */
#ifndef ADVERT_H
#define ADVERT_H

#define ADVERT_WORDS 9	 /* of 32 bits: the header without a trailer */
#define TRAILER_MAX  220 /* bytes behind the header that are summed here */

/* The header's checksum covers 36 bytes (the BSDs) or the whole payload (ucarp
 * sums what it sends): either is right. n is the payload's length.
 */
static __always_inline int advert_sum(struct carp *c, void *end, __u32 n)
{
	__u64 sum = sum_words(c, ADVERT_WORDS);
	__s32 left = n - sizeof(*c);
	__u8 *b = (void *)(c + 1);

	if (!fold(sum))
		return 0;
	if (n > sizeof(*c) + TRAILER_MAX)
		return 0; /* too long to say: user space will */
	for (int i = 0; i < TRAILER_MAX / 2; i++) {
		if (left <= 0)
			break;
		/* The pointer that was checked is the one that is used. */
		asm volatile("" : "+r"(b));
		if ((void *)(b + 2) <= end) {
			sum += left == 1 ? *b : *(__u16 *)b;
		} else if ((void *)(b + 1) <= end && left == 1) {
			sum += *b;
		} else {
			return -1;
		}
		b += 2;
		left -= 2;
	}
	return fold(sum) ? -1 : 0;
}

/* at: the payload; n: its length by the IP header, have: by the frame. Says why
 * the advert is certainly false, or that it may pass; *vhid is whose it is.
 */
static __always_inline enum reason advert(void *at, void *end, __s32 n, __s32 have, __u8 ttl, int fragment,
					  __u32 *vhid)
{
	struct carp *c = at;
	struct vhid *v;

	*vhid = 0;
	if (at + 4 > end)
		return R_RUNT;
	if (c->version != 2 || c->type != 1 || c->authlen != 7)
		return R_ADVERT_VERSION;
	v = vhid_of(c->vhid);
	if (!v || !c->vhid || !(v->flags & VHID_CONFIGURED))
		return R_ADVERT_VHID;
	*vhid = c->vhid;
	if (ttl != HOP_LIMIT)
		return R_BADTTL;
	if (fragment)
		return R_BADFRAG;
	if (n < (__s32)sizeof(*c) || n > have || (void *)(c + 1) > end)
		return R_BADLEN;
	return advert_sum(c, end, n) ? R_BADSUM : R_ADVERT;
}

static __always_inline int certainly_false(enum reason why)
{
	switch (why) {
	case R_BADTTL:
	case R_BADFRAG:
	case R_BADLEN:
	case R_BADSUM:
	case R_BADAUTH:
	case R_BADTRAILER:
	case R_REPLAY:
	case R_LOOP:
	case R_RATELIMIT:
		return 1;
	default:
		return 0;
	}
}

#endif
