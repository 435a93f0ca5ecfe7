package ct

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"net/netip"

	"golang.org/x/sys/unix"
)

const (
	// batchLen is where larger sends stop being cheaper per message.
	batchLen = 256
	// rounds an upsert tries when the kernel's table changes under it.
	rounds = 3
)

// injector makes changes: batches of messages, of which the kernel answers only
// those that ask or fail.
type injector struct {
	sock *socket
	buf  []byte
	m    message
	seq  uint32 // of the first message of the batch
	tags []tag  // one per message of the batch

	pending []work
	seen    keySet
}

// tag says what a message of the batch was for.
type tag struct {
	verb verb
	i    int // index of the operation, or of the work
}

type verb uint8

const (
	verbCreate verb = iota
	verbUpdate
	verbDelete // the caller's
	verbClear  // of what is in the way: fails visibly with what follows
	verbOrig   // find by the original tuple
	verbReply  // find by the reply tuple
)

// work is an upsert that was not a plain creation.
type work struct {
	op                int
	clash             bool // something had one of the two tuples when we created
	orig, reply       record
	hasOrig, hasReply bool
	err               unix.Errno
	again             bool
}

func newInjector() (*injector, error) {
	s, err := newSocket(8 << 20) // answers to a whole batch
	if err != nil {
		return nil, err
	}
	return &injector{sock: s, buf: make([]byte, 64<<10)}, nil
}

// Apply makes the changes, in order where they concern the same flow, and calls
// failed for each that the kernel refused. One goroutine at a time: the kernel
// has one lock for all, and two injectors are slower than one.
//
// After New and Update the table holds exactly this flow, with these
// exceptions: an existing TCP state never goes back (but a connection that was
// over and starts again replaces the old one), SEEN_REPLY and ASSURED are never
// taken away, and an entry that is in the way (another flow with one of our
// tuples) is removed only if it is not ASSURED; else the operation fails with
// EEXIST. Destroy of a flow that is not there is no failure.
func (t *Table) Apply(ops []Op, failed func(i int, err error)) {
	j := t.inject
	for at := 0; at < len(ops); {
		n := j.distinct(ops[at:])
		j.apply(ops[at:at+n], func(i int, err error) {
			if failed != nil {
				op := &ops[at+i]
				failed(at+i, fmt.Errorf("%s %s: %w", op.Change, op.Flow.Orig, err))
			}
		})
		at += n
	}
}

// distinct returns how many of the next operations go into one batch: no flow
// twice, for a batch is not worked off in order.
func (j *injector) distinct(ops []Op) int {
	j.seen = keySet{}
	for i := range ops {
		if i == batchLen || !j.seen.add(&ops[i].Flow.Orig) {
			return i
		}
	}
	return len(ops)
}

// apply works off one batch: at first as if every New were new.
func (j *injector) apply(ops []Op, failed func(i int, err error)) {
	j.pending = j.pending[:0]
	for i := range ops {
		op := &ops[i]
		if op.Change == Destroy {
			// The reply tuple of a Destroy need not be known.
			if err := op.Flow.Orig.valid(); err != nil {
				failed(i, err)
				continue
			}
			j.m.remove(j.add(verbDelete, i), &op.Flow.Orig, 0)
			continue
		}
		if err := op.Flow.valid(); err != nil {
			failed(i, err)
			continue
		}
		if op.Change == Update {
			j.pending = append(j.pending, work{op: i})
			continue
		}
		j.m.create(j.add(verbCreate, i), &op.Flow)
	}
	j.exchange(func(g tag, e unix.Errno, _ *record) {
		switch {
		case g.verb == verbCreate && e == unix.EEXIST:
			j.pending = append(j.pending, work{op: g.i, clash: true})
		case g.verb == verbDelete && e == unix.ENOENT:
		default:
			failed(g.i, e)
		}
	})
	for round := 0; round < rounds && len(j.pending) > 0; round++ {
		j.settle(ops, failed)
	}
	for i := range j.pending {
		failed(j.pending[i].op, j.pending[i].err)
	}
}

// settle looks at what is there for each pending upsert, and changes it. What
// changed under it stays pending.
func (j *injector) settle(ops []Op, failed func(i int, err error)) {
	for k := range j.pending {
		w := &j.pending[k]
		*w = work{op: w.op, clash: w.clash}
		f := &ops[w.op].Flow
		j.m.find(j.add(verbOrig, k), &f.Orig)
	}
	j.exchange(j.found)
	for k := range j.pending { // a second answer costs as much as a write: only where it matters
		w := &j.pending[k]
		if f := &ops[w.op].Flow; w.clash && w.err == 0 && !w.same(f) {
			j.m.find(j.add(verbReply, k), &f.Reply)
		}
	}
	j.exchange(j.found)
	written := func(g tag, e unix.Errno, _ *record) {
		w := &j.pending[g.i]
		switch {
		case g.verb == verbClear && e == unix.ENOENT:
		case g.verb == verbCreate && e == unix.EEXIST:
			w.err, w.again, w.clash = e, true, true
		case g.verb == verbUpdate && e == unix.ENOENT:
			w.err, w.again = e, true
		case w.err == 0:
			w.err = e
		}
	}
	for k := range j.pending {
		w := &j.pending[k]
		if w.err == 0 { // looked up
			j.write(k, w, &ops[w.op].Flow)
			j.full(written)
		}
	}
	j.exchange(written)
	left := j.pending[:0]
	for _, w := range j.pending {
		switch {
		case w.again:
			left = append(left, w)
		case w.err != 0:
			failed(w.op, w.err)
		}
	}
	j.pending = left
}

// same reports whether the kernel has the flow, with the same translation.
func (w *work) same(f *Flow) bool {
	return w.hasOrig && w.orig.Orig == f.Orig && w.orig.Reply == f.Reply
}

// found takes the answer to a lookup.
func (j *injector) found(g tag, e unix.Errno, r *record) {
	w := &j.pending[g.i]
	switch {
	case r == nil && e == unix.ENOENT:
	case r == nil:
		w.err = e
	case g.verb == verbOrig:
		w.orig, w.hasOrig = *r, true
	default:
		w.reply, w.hasReply = *r, true
	}
}

// write turns what is there into what is wanted. A lookup finds an entry by
// either of its tuples, so the entry with our original tuple may be the same
// conversation begun from the other side.
func (j *injector) write(k int, w *work, f *Flow) {
	cur := &w.orig
	if w.same(f) && !f.reopens(cur) {
		j.m.update(j.add(verbUpdate, k), f, cur)
		return
	}
	foreign := func(r *record, has bool) bool { return has && r.Orig != f.Orig }
	if foreign(cur, w.hasOrig) && cur.Status&Assured != 0 ||
		foreign(&w.reply, w.hasReply) && w.reply.Status&Assured != 0 {
		w.err = unix.EEXIST
		return
	}
	if w.hasOrig {
		j.m.remove(j.add(verbClear, k), &cur.Orig, cur.id)
	}
	if w.hasReply && (!w.hasOrig || w.reply.id != cur.id) {
		j.m.remove(j.add(verbClear, k), &w.reply.Orig, w.reply.id)
	}
	j.m.create(j.add(verbCreate, k), f)
}

// reopens reports whether f is a new connection between the ports of cur, which
// is over. The kernel, too, then begins a new entry.
func (f *Flow) reopens(cur *record) bool {
	return f.Orig.Proto == unix.IPPROTO_TCP && f.TCP.State != TCPNone &&
		cur.TCP.State.rank() >= TCPTimeWait && f.TCP.State.rank() <= TCPEstablished
}

// add counts a message into the batch and returns its sequence number.
func (j *injector) add(v verb, i int) uint32 {
	j.tags = append(j.tags, tag{v, i})
	return j.seq + uint32(len(j.tags)-1)
}

// full sends the batch if the messages of another upsert might not fit.
func (j *injector) full(answer func(g tag, e unix.Errno, r *record)) {
	if len(j.tags) > batchLen-3 {
		j.exchange(answer)
	}
}

// exchange sends the batch and hands out the answers: an errno, or a record.
func (j *injector) exchange(answer func(g tag, e unix.Errno, r *record)) {
	tags, first := j.tags, j.seq
	msgs := j.m.b
	j.seq += uint32(len(tags))
	j.tags, j.m.b = j.tags[:0], j.m.b[:0]
	if len(tags) == 0 {
		return
	}
	if err := j.sock.send(msgs); err != nil {
		e, ok := err.(unix.Errno)
		if !ok {
			e = unix.EMSGSIZE
		}
		for _, g := range tags {
			answer(g, e, nil)
		}
		return
	}
	var r record
	for {
		n, err := j.sock.recv(j.buf, unix.MSG_DONTWAIT)
		if err == unix.ENOBUFS {
			continue // answers were lost: of a lookup that reads as "not there"
		}
		if err != nil {
			return // EAGAIN: that was all
		}
		for b := j.buf[:n]; ; {
			h, body, rest, ok := next(b)
			if !ok {
				break
			}
			b = rest
			at := h.seq - first
			if at >= uint32(len(tags)) {
				continue
			}
			switch h.typ {
			case unix.NLMSG_ERROR:
				if e := errno(body); e != 0 {
					answer(tags[at], e, nil)
				}
			case ctNew:
				if r.decode(body) {
					answer(tags[at], 0, &r)
				}
			}
		}
	}
}

// keySet holds the tuples of one batch by hash. Two tuples with one hash only
// make two batches of one.
type keySet [4 * batchLen]uint64

// add reports whether t was not there.
func (s *keySet) add(t *Tuple) bool {
	h := hashAddr(hashAddr(uint64(t.Proto), t.Src), t.Dst)
	h = mix(h, uint64(t.SrcPort)<<16|uint64(t.DstPort)) | 1 // 0 is an empty slot
	for i := h >> 32 % uint64(len(s)); ; i = (i + 1) % uint64(len(s)) {
		switch s[i] {
		case h:
			return false
		case 0:
			s[i] = h
			return true
		}
	}
}

func hashAddr(h uint64, a netip.Addr) uint64 {
	b := a.As16()
	return mix(mix(h, binary.NativeEndian.Uint64(b[:])), binary.NativeEndian.Uint64(b[8:]))
}

func mix(h, v uint64) uint64 {
	hi, lo := bits.Mul64(h^v^0x9e3779b97f4a7c15, 0xd6e8feb86659fd93)
	return hi ^ lo
}
