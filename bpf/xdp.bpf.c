/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
 *
 * XDP on the carpdev: shields, answers and gates, before the stack sees a frame.
 */
#include "vmlinux.h"
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "carp.h"
#include "maps.h"
#include "frame.h"
#include "share.h"
#include "advert.h"
#include "digest.h"
#define load_bytes bpf_xdp_load_bytes
#include "shield.h"
#include "gate.h"
#include "pulse.h"
#include "pulse_xdp.h"

static __always_inline int ingress(struct xdp_md *ctx, enum shielding shielding)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct finding f = {.ctx = ctx};
	struct port *p = this_port();
	__u32 len = end - data;

	if (is_pulse(data, end))
		return pulse_xdp(ctx);
	f.answer_here = !p || !(p->flags & PORT_ANSWER_TC);
	switch (gate(data, end, len, shielding, &f)) {
	case ANSWER:
		return verdict(f.vhid, f.why, XDP_TX);
	case ANSWER_ND:
		/* Keeps the compiler from using the pointers it has. */
		asm volatile("" : "+r"(ctx));
		if (bpf_xdp_adjust_tail(ctx, NA_LEN - (int)len) ||
		    write_na((void *)(long)ctx->data, (void *)(long)ctx->data_end, &f))
			return verdict(f.vhid, R_ND_BAD, XDP_DROP);
		return verdict(f.vhid, f.why, XDP_TX);
	case DROP:
		return verdict(f.vhid, f.why, XDP_DROP);
	}
	return verdict(f.vhid, f.why, XDP_PASS);
}

SEC("xdp") int carp_xdp(struct xdp_md *ctx)
{
	return ingress(ctx, VERIFY);
}

/* For devices with an MTU whose frames do not fit into one buffer. Every header
 * we look at lies in the first.
 */
SEC("xdp.frags") int carp_xdp_frags(struct xdp_md *ctx)
{
	return ingress(ctx, VERIFY);
}

/* For kernels that refuse the two above: without cryptography. */
SEC("xdp") int carp_xdp_light(struct xdp_md *ctx)
{
	return ingress(ctx, LIMIT);
}

SEC("xdp.frags") int carp_xdp_light_frags(struct xdp_md *ctx)
{
	return ingress(ctx, LIMIT);
}

char _license[] SEC("license") = "Dual BSD/GPL";
