/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
 *
 * Pulses in tc ingress: those that XDP hands up, or all where there is no XDP. As
 * in pulse_xdp.h a function by itself.
 */
#ifndef PULSE_TC_H
#define PULSE_TC_H

#ifndef PULSE_WHERE
#define PULSE_WHERE 0
#endif

__noinline int pulse_tc(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct port *p = this_port();
	int does = PULSE_ANSWERS | PULSE_HEARS | PULSE_WHERE;

	if (p && p->flags & PORT_XDP) {
		if (!(p->flags & PORT_ANSWER_TC))
			return TC_ACT_UNSPEC; /* what XDP did not want */
		does &= ~PULSE_HEARS;
	}
	switch (pulse(data, end, skb->len, does)) {
	case PULSE_BACK:
		return bpf_redirect(skb->ifindex, 0);
	case PULSE_DROP:
		return TC_ACT_SHOT;
	}
	return TC_ACT_UNSPEC;
}

#endif
