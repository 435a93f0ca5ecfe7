/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
 *
 * The only place where C and Go meet: bpf2go turns what stands here into Go
 * types. Times are CLOCK_BOOTTIME nanoseconds, addresses in network order.
 */
#ifndef CARP_H
#define CARP_H

/* Of everything below. A pinned map of another layout is never read. */
enum layout { LAYOUT = 6 };

/* The numbers of carp.State in Go, which a test compares. */
enum role { ROLE_INIT, ROLE_BACKUP, ROLE_MASTER, ROLE_DRAIN };

enum vhid_flag {
	VHID_CONFIGURED = 1,
	VHID_LEADER = 2, /* the first of several that share its addresses: struct share */
	VHID_HIDDEN = 4, /* what it sends leaves with the device's own MAC */
};

/* One per vhid, indexed by the last byte of the virtual MAC. User space maps
 * the array. Every field is written whole, by whom it says:
 *
 *	role	 daemon and programs, by compare-and-swap only. A claim that is
 *		 acknowledged changes the word whatever it is, so that a daemon
 *		 that is about to swap it finds out.
 *	claim	 programs, by compare-and-swap only.
 *	hint	 programs; who is last wins.
 *	the rest the daemon.
 *
 * The group's term is the higher one of term and of the claim's.
 */
struct vhid {
	__u64 role;  /* low two bits: enum role; the rest: until when it holds */
	__u64 stamp; /* when the daemon was last known to be alive */
	enum vhid_flag flags;
	__u32 demotion;
	__u64 term;  /* that the daemon knows of */
	__u64 claim; /* the last one acknowledged: session, low half of its term; or 0 */
	__u64 hint;  /* when a frame for the virtual MAC was last refused */
	__u64 first; /* when the first frame for it was taken; 0 asks for that */
	__u64 reserved[1];
};

/* Whose an address is. */
struct owner {
	__u32 vhid;
	__u32 flags;
};

enum share_flag {
	SHARE_FRAMES = 1,    /* every node receives all frames, and keeps some */
	SHARE_MULTICAST = 2, /* they come to 01:00:5e:00:01:LEADER */
	SHARE_SOURCE_IP = 4, /* who answers is chosen by the IP address of the asker */
};

enum { SHARE_MAX = 32 };

/* Vhids that share addresses. Found by their leader, which is the owner of the
 * addresses. Replaced as a whole.
 */
struct share {
	enum share_flag flags;
	__u32 count;
	__u32 key[2];	      /* of the hash, which is the same on all nodes */
	__u8 vhid[SHARE_MAX]; /* rising */
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
	__u32 programs[2]; /* which are attached, and of which build: for user space */
	__u32 reserved[9];
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
	R_VMAC_OTHER,	/* of a share that another node has */
	/* adverts */
	R_ADVERT,
	R_ADVERT_VHID,	  /* of a vhid that is not configured here */
	R_ADVERT_VERSION, /* protocol 112, but not CARP version 2: VRRP */
	R_REMINDER,	  /* somebody tells us how far he has seen us come */
	R_BADTTL,
	R_BADLEN,
	R_BADSUM,
	R_BADFRAG,
	R_BADAUTH,    /* neither the digest nor a trailer is of our keys */
	R_BADTRAILER, /* the digest alone is, and that is not enough here */
	R_REPLAY,     /* not newer than what its sender was last believed, or heard before */
	R_LOOP,	      /* our own */
	R_RATELIMIT,  /* more than anybody has to say */
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
	/* pulses */
	R_PULSE_ASKED,	  /* and answered */
	R_PULSE_ANSWER,	  /* a genuine one: noted */
	R_PULSE_CLAIMED,  /* and acknowledged */
	R_PULSE_REFUSED,  /* a claim that was not */
	R_PULSE_BAD,	  /* of no version of ours, or the MAC is wrong */
	R_PULSE_STRANGER, /* of a session, group or path that is not known here */
	R_PULSE_OLD,	  /* an answer to what was not asked now */
	R_PULSE_LIMIT,	  /* asks that are not newer than the last, too many */
	REASONS = 64,
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

enum {
	HEADER_LEN = 36,
	TRAILER_LEN = 48, /* of ours: see carp.Trailer in Go */
	TRAILER_SIGNED = 30,
	TRAILER_MAC = 16,
	SHIELD_DIGESTS = 2,
	SHIELD_TRAILERS = 4,
	SHIELD_NODES = 8,
	SHIELD_PEERS = 4,
	REMINDER_LEN = 60, /* see carp.Guard in Go */
	REMINDER_SIGNED = 44,
	REMINDER_VERSION = 0xf1,
};

/* HMAC-SHA1 of one list of addresses, hashed as far as it is the same for every
 * advert: what a dump of it shows is no password.
 */
struct digest_key {
	__u32 inner[5]; /* after the whole blocks of pad and addresses */
	__u32 outer[5]; /* after the pad */
	__u32 at;	/* of the counter, in tail */
	__u32 blocks;	/* of tail, 1 or 2 */
	__u8 tail[128]; /* the rest of the addresses, the counter, SHA-1's padding */
};

/* HMAC-SHA256 after the pads. */
struct trailer_key {
	__u32 inner[8];
	__u32 outer[8];
	__u32 id;
	__u32 pad;
};

enum shield_flag {
	SHIELD_ENFORCE = 1, /* nothing is believed without a trailer */
};

/* What adverts of a vhid are checked against. Replaced as a whole. */
struct shield {
	enum shield_flag flags;
	__u32 digests;	/* 0: not checked */
	__u32 trailers; /* 0: nobody sends them */
	__u32 pad;
	__u64 every; /* ns between adverts of one sender, lasting */
	__u64 burst; /* ns worth of adverts at once */
	struct digest_key digest[SHIELD_DIGESTS];
	struct trailer_key trailer[SHIELD_TRAILERS];
};

/* The newest advert of a node that was believed, or sent. */
struct mark {
	__u64 node, epoch, counter;
	__u64 own; /* 1: it is us */
};

/* Who has been believed lately, on one vhid. Replaced as a whole. */
struct known {
	__u32 nodes, peers;
	struct mark node[SHIELD_NODES];
	struct in6_addr peer[SHIELD_PEERS]; /* sources; IPv4 as ::ffff:a.b.c.d */
};

/* When each sender's next advert would be due if it were evenly spaced: the
 * generic cell rate algorithm, ITU-T I.371.
 */
struct bucket {
	__u64 signed_; /* with a right trailer */
	__u64 stranger;
	__u64 old;	/* signed, and older than the last */
	__u64 same;	/* heard before, to the last byte of the header */
	__u64 altered;	/* its digest was, with other values */
	__u64 reminder; /* news for us */
	__u64 foreign;	/* VRRP, and whatever else is no advert */
	__u64 peer[SHIELD_PEERS];
};

/* An advert that was refused, or a VRRP packet with the number of a vhid. */
struct sample {
	__u64 at;
	enum reason why;
	__u16 len; /* of the payload, by the IP header */
	__u8 ttl;
	__u8 have; /* bytes of data */
	struct in6_addr from;
	__u8 mac[6];
	__u8 pad[2];
	__u8 data[HEADER_LEN + TRAILER_LEN];
	__u32 pad2;
};

/* What follows the Ethernet header of a pulse: docs/pulses.md. */
struct pulse {
	__u8 version, kind, role, demotion;
	__be16 age;  /* of the last sign of life, ms */
	__be16 path; /* the asker's */
	__be32 session, group;
	__u64 nonce, term; /* network order, too */
	__be32 lease;	   /* left, us */
	__be32 challenge;
	__u64 mac; /* as a number: little endian */
};

enum {
	PULSE_VERSION = 1,
	PULSE_SIGNED = 5, /* in words of 64 bits */
	PULSE_SLOTS = 64, /* carpdevs */
	PULSE_PATHS = 1024,
};

/* The numbers of carp.PulseKind in Go, which a test compares. */
enum pulse_kind {
	PULSE_ASK = 1,
	PULSE_ANSWER,
	PULSE_CLAIM,
	PULSE_ACK,
	PULSE_REFUSAL,
};

/* Whose asks are answered. */
struct pulse_session {
	__u64 key[2];
	/* Per slot, and of the sync device: the newest nonce. Who repeats an ask
	 * cannot come before it, so a flood of them silences nobody.
	 */
	__u64 newest[PULSE_SLOTS + 1];
	__u64 due; /* of the bucket for all that is not newer: see shield.h */
};

/* Where a group is. */
struct pulse_group {
	__u32 slot, vhid;
};

/* What came back. seq is odd while it is being written. */
struct pulse_heard {
	__u64 seq;
	__u64 at; /* when */
	__u64 nonce, term;
	__u64 age;   /* ns */
	__u64 lease; /* ns */
	enum pulse_kind kind;
	enum role role;
	__u32 demotion, challenge;
	__u32 session, pad;
};

/* What is asked from here. User space maps the array and writes what stands above
 * answer, session last: while it is zero there is no path.
 */
struct pulse_path {
	__u32 session, group;
	__u64 key[2];
	__u64 pad[5];
	struct pulse_heard answer; /* to the last ask */
	struct pulse_heard claim;  /* to the last claim: an acknowledgement, or a refusal */
};

/* A claim, as it ended. */
struct pulse_event {
	__u64 at;
	__u64 term; /* that was claimed */
	__u64 had;  /* the group's before */
	__u32 session, group;
	enum reason why;
	enum role role; /* that was claimed from */
	__u32 slot, vhid;
};

#endif
