/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
 *
 * For the far end of a veth: without a program there, frames sent back by
 * XDP_TX at this end wait until something else wakes the far end's queue.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

SEC("xdp") int pass(struct xdp_md *ctx)
{
	return XDP_PASS;
}

char _license[] SEC("license") = "Dual BSD/GPL";
