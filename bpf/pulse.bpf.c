/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
 *
 * XDP and tc ingress on the sync device: pulses, and nothing else.
 */
#define COUNTED 1 /* vhid 0: what comes here is of no carpdev */

#include "vmlinux.h"
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "carp.h"
#include "device.h"
#include "frame.h"
#include "pulse.h"

#define PULSE_WHERE   PULSE_OF_SYNC
#define TC_ACT_UNSPEC (-1) /* on to the next program: others have theirs */
#define TC_ACT_SHOT   2

#define VLAN_VID 0xfff

#include "pulse_xdp.h"
#include "pulse_tc.h"

static __always_inline int sync_xdp(struct xdp_md *ctx)
{
	if (is_pulse((void *)(long)ctx->data, (void *)(long)ctx->data_end))
		return pulse_xdp(ctx);
	return XDP_PASS;
}

SEC("xdp") int carp_sync_xdp(struct xdp_md *ctx)
{
	return sync_xdp(ctx);
}

/* For devices with an MTU whose frames do not fit into one buffer. */
SEC("xdp.frags") int carp_sync_xdp_frags(struct xdp_md *ctx)
{
	return sync_xdp(ctx);
}

SEC("tc") int carp_sync_ingress(struct __sk_buff *skb)
{
	if (skb->vlan_present && skb->vlan_tci & VLAN_VID)
		return TC_ACT_UNSPEC; /* another segment */
	if (skb->len == PULSE_FRAME && (long)skb->data_end - (long)skb->data < (long)PULSE_FRAME)
		bpf_skb_pull_data(skb, PULSE_FRAME);
	if (is_pulse((void *)(long)skb->data, (void *)(long)skb->data_end))
		return pulse_tc(skb);
	return TC_ACT_UNSPEC;
}

char _license[] SEC("license") = "Dual BSD/GPL";
