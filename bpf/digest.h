/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
 *
 * SHA-1 and SHA-256: one block at a time, from the state in the scratch to the
 * state in the scratch. They are functions of their own, so that the verifier
 * walks through each once, however many ways lead there.
 */
#ifndef DIGEST_H
#define DIGEST_H

/* Where a processor computes. Nobody else writes there while it does. */
struct scratch {
	__u64 busy;
	__u32 w[16]; /* the block, as words */
	__u32 h[8];  /* the state */
	__u32 v[8];  /* and what becomes of it */
	__u8 block[128];
	struct sample sample; /* the advert in question */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct scratch);
} scratches SEC(".maps");

static __always_inline struct scratch *this_scratch(void)
{
	__u32 key = 0;

	return bpf_map_lookup_elem(&scratches, &key);
}

static __always_inline __u32 rol(__u32 x, int n)
{
	return x << n | x >> (32 - n);
}

/* FIPS 180-4, section 6.1.3: the schedule in sixteen words. */
__noinline int sha1(void)
{
	struct scratch *s = this_scratch();
	volatile __u32 *w; /* in memory: there are not as many registers */
	__u32 a, b, c, d, e;

	if (!s)
		return -1;
	w = s->w;
	a = s->h[0];
	b = s->h[1];
	c = s->h[2];
	d = s->h[3];
	e = s->h[4];
#pragma unroll
	for (int t = 0; t < 80; t++) {
		__u32 x = w[t & 15], sum = e + rol(a, 5);

		if (t >= 16) {
			x = rol(x ^ w[(t + 2) & 15] ^ w[(t + 8) & 15] ^ w[(t + 13) & 15], 1);
			w[t & 15] = x;
		}
		sum += x;
		if (t < 20)
			sum += (d ^ (b & (c ^ d))) + 0x5a827999;
		else if (t < 40)
			sum += (b ^ c ^ d) + 0x6ed9eba1;
		else if (t < 60)
			sum += ((b & c) | (d & (b | c))) + 0x8f1bbcdc;
		else
			sum += (b ^ c ^ d) + 0xca62c1d6;
		e = d;
		d = c;
		c = rol(b, 30);
		b = a;
		a = sum;
	}
	s->h[0] += a;
	s->h[1] += b;
	s->h[2] += c;
	s->h[3] += d;
	s->h[4] += e;
	return 0;
}

/* FIPS 180-4, section 6.2.2. */
__noinline int sha256(void)
{
	const __u32 k[64] = {
		0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4,
		0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe,
		0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f,
		0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7,
		0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc,
		0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b,
		0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116,
		0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
		0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7,
		0xc67178f2,
	};
	struct scratch *s = this_scratch();
	volatile __u32 *w, *v; /* a to h; the names move on, not the values */

	if (!s)
		return -1;
	w = s->w;
	v = s->v;
#pragma unroll
	for (int i = 0; i < 8; i++)
		v[i] = s->h[i];
#pragma unroll
	for (int t = 0; t < 64; t++) {
		__u32 x = w[t & 15], y, z;

		if (t >= 16) {
			y = w[(t + 1) & 15];
			x += rol(y, 25) ^ rol(y, 14) ^ y >> 3;
			y = w[(t + 14) & 15];
			x += rol(y, 15) ^ rol(y, 13) ^ y >> 10;
			x += w[(t + 9) & 15];
			w[t & 15] = x;
		}
		y = v[(4 - t) & 7]; /* e */
		z = v[(6 - t) & 7]; /* g */
		x += v[(7 - t) & 7] + k[t] + (rol(y, 26) ^ rol(y, 21) ^ rol(y, 7)) +
		     (z ^ (y & (v[(5 - t) & 7] ^ z)));
		v[(3 - t) & 7] += x;
		y = v[-t & 7];	    /* a */
		z = v[(1 - t) & 7]; /* b */
		v[(7 - t) & 7] =
			x + (rol(y, 30) ^ rol(y, 19) ^ rol(y, 10)) + ((y & z) | (v[(2 - t) & 7] & (y | z)));
	}
#pragma unroll
	for (int i = 0; i < 8; i++)
		s->h[i] += v[i];
	return 0;
}

/* The block's words from 64 of its bytes. */
static __always_inline void load_block(struct scratch *s, const __u8 *from)
{
	const __u32 *w = (const __u32 *)from;

#pragma unroll
	for (int i = 0; i < 16; i++)
		s->w[i] = bpf_ntohl(w[i]);
}

/* The block that ends an HMAC: the inner digest, and the padding of 64 + 4 * n
 * bytes.
 */
static __always_inline void load_outer(struct scratch *s, int n)
{
#pragma unroll
	for (int i = 0; i < 16; i++)
		s->w[i] = i < n ? s->h[i] : 0;
	s->w[n] = 0x80000000;
	s->w[15] = (64 + 4 * n) * 8;
}

#endif
