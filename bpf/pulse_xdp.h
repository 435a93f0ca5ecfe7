/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
 *
 * Pulses in XDP. A function that the verifier walks through by itself, so that it
 * does not multiply with what else a program does.
 */
#ifndef PULSE_XDP_H
#define PULSE_XDP_H

#ifndef PULSE_WHERE
#define PULSE_WHERE 0
#endif

__noinline int pulse_xdp(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct port *p = this_port();
	int does = PULSE_HEARS | PULSE_WHERE;

	if (!p || !(p->flags & PORT_ANSWER_TC))
		does |= PULSE_ANSWERS;
	switch (pulse(data, end, end - data, does)) {
	case PULSE_BACK:
		return XDP_TX;
	case PULSE_DROP:
		return XDP_DROP;
	}
	return XDP_PASS;
}

#endif
