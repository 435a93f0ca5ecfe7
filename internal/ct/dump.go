package ct

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// ErrInterrupted is a dump that missed or repeated entries, because the table
// was rebuilt under it or an answer was lost. What was delivered is true.
var ErrInterrupted = errors.New("dump interrupted")

// Dump calls fn for each TCP, UDP, ICMP and ICMPv6 entry, in the kernel's
// order. The Flow is valid during the call only. Dumps wait for each other. A
// dump that is ended early, by ctx or by an error of fn, reads the rest and
// throws it away, for the kernel has one dump per socket.
func (t *Table) Dump(ctx context.Context, fn func(*Flow) error) error {
	t.dumping.Lock()
	defer t.dumping.Unlock()
	if err := t.readTable(ctx, fn); err != nil {
		return fmt.Errorf("dump connections: %w", err)
	}
	return nil
}

func (t *Table) readTable(ctx context.Context, fn func(*Flow) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	var m message
	m.begin(ctGet, unix.NLM_F_DUMP, 0, unix.AF_UNSPEC)
	m.end()
	if err := t.dump.send(m.b); err != nil {
		return err
	}
	var r record
	var ended error // why fn is not called any more
	var interrupted bool
	for {
		// The kernel fills the next datagram during recv: this never waits.
		n, err := t.dump.recv(t.dumpBuf, 0)
		if err == unix.ENOBUFS {
			interrupted = true
			continue
		}
		if err != nil {
			return errors.Join(ended, err)
		}
		if ended == nil {
			ended = ctx.Err()
		}
		for b := t.dumpBuf[:n]; ; {
			h, body, rest, ok := next(b)
			if !ok {
				break
			}
			b = rest
			interrupted = interrupted || h.flags&unix.NLM_F_DUMP_INTR != 0
			switch h.typ {
			case unix.NLMSG_DONE:
				if ended == nil && len(body) >= 4 && errno(body) != 0 {
					ended = errno(body)
				}
				if ended == nil && interrupted {
					ended = ErrInterrupted
				}
				return ended
			case unix.NLMSG_ERROR:
				return errors.Join(ended, errno(body))
			case ctNew:
				if ended == nil && r.decode(body) {
					ended = fn(&r.Flow)
				}
			}
		}
	}
}
