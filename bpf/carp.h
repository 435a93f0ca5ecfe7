/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
 *
 * The only place where C and Go meet: bpf2go turns what stands here into Go
 * types. Times are CLOCK_BOOTTIME nanoseconds, addresses in network order.
 */
#ifndef CARP_H
#define CARP_H

/* Of everything below. A pinned map of another layout is never read. */
enum layout { LAYOUT = 1 };

/* The numbers of carp.State in Go, which a test compares. */
enum role { ROLE_INIT, ROLE_BACKUP, ROLE_MASTER, ROLE_DRAIN };

enum vhid_flag { VHID_CONFIGURED = 1 };

/* One per vhid, indexed by the last byte of the virtual MAC. User space maps
 * the array and changes role by compare-and-swap only.
 */
struct vhid {
	__u64 role;  /* low two bits: enum role; the rest: until when it holds */
	__u64 stamp; /* when the daemon was last known to be alive */
	enum vhid_flag flags;
	__u32 pad;
	__u64 reserved[5];
};

/* Whose an address is. */
struct owner {
	__u32 vhid;
	__u32 flags;
};

enum port_flag {
	PORT_ANSWER_TC = 1, /* XDP leaves the answers to tc ingress */
	PORT_ROUTER = 2,    /* neighbour advertisements carry the R flag */
	PORT_XDP = 4,	    /* XDP is attached and counts what passes */
	PORT_PROMISC = 8,   /* we switched the device to promiscuous mode */
};

/* The carpdev. */
struct port {
	enum layout layout;
	enum port_flag flags;
	__u32 ifindex;
	__u8 mac[6];
	__u8 pad[2];
	__u32 reserved[11];
};

/* Why a frame went where it went. The names without the R_, in lower case, are
 * what counters are called everywhere. Vhid 0 counts what is nobody's.
 */
enum reason {
	R_FOREIGN, /* none of our business: passes, and is not counted */
	/* ARP and neighbour discovery */
	R_ARP_ANSWERED,
	R_ARP_SILENT,	/* asked for a shared address, not master */
	R_ARP_BAD,	/* not Ethernet and IPv4, or cut off */
	R_ARP_CONFLICT, /* somebody else's MAC claims a shared address */
	R_ANNOUNCE,	/* the virtual MAC claims a shared address */
	R_ND_ANSWERED,
	R_ND_SILENT,
	R_ND_BAD,
	R_ND_CONFLICT,
	R_HANDED_UP, /* to be answered by tc ingress */
	/* frames for a virtual MAC */
	R_VMAC_TAKEN,
	R_VMAC_SILENT,
	R_VMAC_UNKNOWN, /* of a vhid that is not configured here */
	/* adverts */
	R_ADVERT,
	R_ADVERT_VHID,	  /* of a vhid that is not configured here */
	R_ADVERT_VERSION, /* protocol 112, but not CARP version 2: VRRP */
	R_BADTTL,
	R_BADLEN,
	R_BADSUM,
	R_BADFRAG,
	/* shapes */
	R_VLAN,
	R_RUNT,
	R_FRAGMENT,
	/* egress */
	R_OUT_VMAC,	/* master's frame from its virtual MAC */
	R_OUT_ARP,	/* the stack's ARP, given the virtual MAC */
	R_OUT_ND,	/* the stack's neighbour discovery, likewise */
	R_FENCE_VMAC,	/* from the virtual MAC, not master */
	R_FENCE_SOURCE, /* from a shared address, neither master nor draining */
	R_FENCE_ARP,	/* ARP for a shared address, not master */
	R_FENCE_ND,
	R_HAIRPIN, /* came in here, goes out here, to a shared address */
	REASONS = 40,
};

/* The CARP header, as in ip_carp.h. */
struct carp {
	__u8 type : 4, version : 4;
	__u8 vhid;
	__u8 advskew;
	__u8 authlen; /* of counter and md in 32-bit words: 7 */
	__u8 demotion;
	__u8 advbase;
	__be16 sum;
	__be32 counter[2];
	__u8 md[20];
};

#endif
