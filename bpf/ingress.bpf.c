/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
 *
 * tc ingress on the carpdev. Behind XDP it finishes what XDP cannot: it makes
 * frames that XDP readdressed acceptable to the stack, and gives the answers
 * where XDP_TX is not delivered in time. Without XDP it is the whole gate.
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
#define load_bytes bpf_skb_load_bytes
#include "shield.h"
#include "gate.h"
#include "pulse.h"

#define TC_ACT_UNSPEC (-1) /* on to the next program: others have theirs */
#define TC_ACT_SHOT   2

#define PACKET_HOST	 0
#define PACKET_MULTICAST 2
#define PACKET_OTHERHOST 3

#define VLAN_VID 0xfff
#define PULL	 512

#include "pulse_tc.h"

static __always_inline int ingress(struct __sk_buff *skb, enum shielding shielding)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct finding f = {.ctx = skb, .answer_here = 1};
	struct port *p = this_port();
	struct ethhdr *eth;
	int action, quiet = p && p->flags & PORT_XDP; /* XDP has judged and counted it */

	if (skb->vlan_present && skb->vlan_tci & VLAN_VID)
		return verdict(0, R_VLAN, TC_ACT_UNSPEC);

	/* Headers of long frames are linear; of short ones have everything. */
	if (skb->len > end - data &&
	    (skb->len <= PULL || end - data < (long)(sizeof(*eth) + sizeof(struct ipv6hdr)))) {
		bpf_skb_pull_data(skb, skb->len < PULL ? skb->len : PULL);
		data = (void *)(long)skb->data;
		end = (void *)(long)skb->data_end;
	}
	if (is_pulse(data, end))
		return pulse_tc(skb);
	f.judged = quiet;
	action = gate(data, end, skb->len, shielding, &f);
	switch (action) {
	case ANSWER_ND:
		if (bpf_skb_change_tail(skb, NA_LEN, 0) ||
		    write_na((void *)(long)skb->data, (void *)(long)skb->data_end, &f))
			return verdict(f.vhid, R_ND_BAD, TC_ACT_SHOT);
		/* fall through */
	case ANSWER:
		return verdict(f.vhid, f.why, bpf_redirect(skb->ifindex, 0));
	case DROP:
		return verdict(f.vhid, f.why, TC_ACT_SHOT);
	case TAKE:
		bpf_skb_change_type(skb, PACKET_HOST);
		return verdict(f.vhid, f.why, TC_ACT_UNSPEC);
	}
	/* The device's own address and yet for another host, or for many: the
	 * stack judged before XDP readdressed the frame.
	 */
	eth = data;
	if (p && (skb->pkt_type == PACKET_OTHERHOST || skb->pkt_type == PACKET_MULTICAST) &&
	    (void *)(eth + 1) <= end && same_mac(eth->h_dest, p->mac))
		bpf_skb_change_type(skb, PACKET_HOST);
	return verdict(f.vhid, quiet ? R_FOREIGN : f.why, TC_ACT_UNSPEC);
}

SEC("tc") int carp_ingress(struct __sk_buff *skb)
{
	return ingress(skb, VERIFY);
}

/* For kernels that refuse the one above: without cryptography. */
SEC("tc") int carp_ingress_light(struct __sk_buff *skb)
{
	return ingress(skb, LIMIT);
}

char _license[] SEC("license") = "Dual BSD/GPL";
