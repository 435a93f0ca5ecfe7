/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
 *
 * What no CARP implementation would send never gets past here.
 */
#ifndef ADVERT_H
#define ADVERT_H

#define ADVERT_LEAST 4 /* bytes that tell whose it is */

/* What an IP packet carries that claims to be an advert. */
struct payload {
	struct carp *at;
	__u32 off;  /* in the frame */
	__s32 len;  /* by the IP header */
	__s32 have; /* by the frame */
	__u32 ttl;
	__u32 fragment;
	struct in6_addr from;
};

/* Says why the advert is certainly false, or that it may pass if its sum is right;
 * *vhid is whose it is.
 */
static __always_inline enum reason advert(const struct payload *p, void *end, __u32 *vhid)
{
	struct carp *c = p->at;
	struct vhid *v;

	*vhid = 0;
	if ((void *)c + ADVERT_LEAST > end)
		return R_RUNT;
	if (c->version != 2 || c->type != 1 || c->authlen != 7)
		return R_ADVERT_VERSION;
	v = vhid_of(c->vhid);
	if (!v || !c->vhid || !(v->flags & VHID_CONFIGURED))
		return R_ADVERT_VHID;
	*vhid = c->vhid;
	if (p->ttl != HOP_LIMIT)
		return R_BADTTL;
	if (p->fragment)
		return R_BADFRAG;
	if (p->len < (__s32)sizeof(*c) || p->len > p->have)
		return R_BADLEN;
	return R_ADVERT;
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
