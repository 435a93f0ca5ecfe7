package sync

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

// What goes over the wire is
//
//	 0      1            5                 13
//	+------+------------+-----------------+---------------------------+
//	| type | session id | sequence number | ciphertext and 16-byte tag |
//	+------+------------+-----------------+---------------------------+
//
// The session id is the one the receiver chose. The sequence number is the
// nonce; the first 13 bytes are the associated data. Only frameData has the
// sequence number; a handshake message follows the id directly, frameHello is
// the type alone. Types we do not know are counted and skipped.
const (
	frameHello = 1 // "I have no session": a hint, believed by nobody
	frameInit  = 2 // first message of the handshake
	frameResp  = 3 // second message
	frameData  = 4

	headerLen = 1 + 4 + 8
	tagLen    = 16
)

// The plaintext of a data frame is a byte of flags and then messages, each
//
//	 0      1        3
//	+------+--------+------+
//	| kind | length | body |
//	+------+--------+------+
//
// Kinds we do not know are skipped.
const (
	flagOwner  = 0x01 // the sender is MASTER of a group
	flagSynced = 0x02 // the sender's table is as complete as the receiver's

	msgAck   = 1
	msgBeat  = 2
	msgFlows = 3 // records to the end of the body
	msgTold  = 4 // of Tell: none of the mirror's business

	msgHeader = 3
)

var errFrame = errors.New("malformed frame")

// beginMessage appends the header of a message; endMessage fills in the length.
func beginMessage(b []byte, kind byte) []byte { return append(b, kind, 0, 0) }

func endMessage(b []byte, at int) {
	binary.BigEndian.PutUint16(b[at+1:], uint16(len(b)-at-msgHeader))
}

// nextMessage takes the first message from b.
func nextMessage(b []byte) (kind byte, body, rest []byte, err error) {
	r := reader{b: b}
	kind = r.u8()
	body = r.take(int(r.u16()))
	if r.short {
		return 0, nil, nil, fmt.Errorf("message of %d bytes: %w", len(b), errFrame)
	}
	return kind, body, r.b, nil
}

// ackBits is how many frames before the highest one an ack tells about.
const ackBits = 512

// ack says which data frames have been applied: Top, and bit i for Top-1-i.
type ack struct {
	top  uint64
	bits [ackBits / 64]uint64
}

// mark adds a frame. Frames come in increasing order; an older one is ignored.
func (a *ack) mark(seq uint64) {
	if seq <= a.top {
		return
	}
	d := seq - a.top
	a.shift(d)
	if a.top != 0 && d <= ackBits {
		a.bits[(d-1)/64] |= 1 << ((d - 1) % 64)
	}
	a.top = seq
}

func (a *ack) shift(d uint64) {
	if d >= ackBits {
		a.bits = [ackBits / 64]uint64{}
		return
	}
	word, bit := int(d/64), d%64
	for i := len(a.bits) - 1; i >= 0; i-- {
		var v uint64
		if i >= word {
			v = a.bits[i-word] << bit
			if bit != 0 && i > word {
				v |= a.bits[i-word-1] >> (64 - bit)
			}
		}
		a.bits[i] = v
	}
}

// has reports whether the frame was applied.
func (a *ack) has(seq uint64) bool {
	if seq >= a.top {
		return seq == a.top
	}
	d := a.top - 1 - seq
	return d < ackBits && a.bits[d/64]&(1<<(d%64)) != 0
}

func appendAck(b []byte, a *ack) []byte {
	at := len(b)
	b = beginMessage(b, msgAck)
	b = binary.BigEndian.AppendUint64(b, a.top)
	n := len(a.bits)
	for n > 0 && a.bits[n-1] == 0 {
		n--
	}
	for _, w := range a.bits[:n] {
		b = binary.BigEndian.AppendUint64(b, w)
	}
	endMessage(b, at)
	return b
}

func parseAck(body []byte, a *ack) error {
	if len(body) < 8 || len(body) > 8+ackBits/8 || len(body)%8 != 0 {
		return fmt.Errorf("ack of %d bytes: %w", len(body), errFrame)
	}
	r := reader{b: body}
	*a = ack{top: r.u64()}
	for i := 0; len(r.b) > 0; i++ {
		a.bits[i] = r.u64()
	}
	return nil
}

// GroupRole is where one of a node's groups stands, as the node tells its peers.
type GroupRole struct {
	Name     string
	State    uint8 // carp.State
	Term     uint64
	Demotion int

	// Ears is carp.Ears of the carpdev, Targets who might answer there: IPv4
	// neighbours.
	Ears    uint8
	Targets []netip.Addr

	// Marks are how far the adverts of each node have come, as far as the
	// sender knows; the first one is its own.
	Marks []Mark
}

// Mark is a place in the order of a node's adverts: carp.Mark, and whose.
type Mark struct {
	Node, Epoch, Counter uint64
}

// targetsMax bounds the neighbours of one group in a heartbeat.
const targetsMax = 4

// marksMax bounds the marks of one group in a heartbeat.
const marksMax = 8

// beat is the heartbeat. It repeats what must not get lost, so nothing in it
// needs an ack of its own.
type beat struct {
	want  uint32    // the bulk update that the sender asks for, 0: none
	serve uint32    // the bulk update that the sender answers
	phase bulkPhase // how far that is
	count uint32    // flows of that bulk update, once it has ended
	dirty uint32    // when it changes: what I told you may be wrong, ask again
	heard uint16    // ms since the sender heard the receiver
	flows uint32    // flows that the sender knows
	roles []GroupRole
	keys  []byte // ids of the keys that the sender accepts, the one it signs with first
}

// keysMax is how many ids of keys a heartbeat has.
const keysMax = 16

// bulkPhase is where the answer to a request for a bulk update stands.
type bulkPhase uint8

const (
	bulkNone     bulkPhase = iota
	bulkRunning            // BEGIN: flows are on their way
	bulkEnd                // every flow has been acked
	bulkNotOwner           // the sender owns nothing and has nothing to tell
)

func appendBeat(b []byte, h *beat) []byte {
	at := len(b)
	b = beginMessage(b, msgBeat)
	b = binary.BigEndian.AppendUint32(b, h.want)
	b = binary.BigEndian.AppendUint32(b, h.serve)
	b = append(b, byte(h.phase))
	b = binary.BigEndian.AppendUint32(b, h.count)
	b = binary.BigEndian.AppendUint32(b, h.dirty)
	b = binary.BigEndian.AppendUint16(b, h.heard)
	b = binary.BigEndian.AppendUint32(b, h.flows)
	b = append(b, byte(len(h.roles)))
	for _, g := range h.roles {
		b = appendText(b, g.Name)
		b = append(b, g.State)
		b = binary.BigEndian.AppendUint64(b, g.Term)
		b = binary.BigEndian.AppendUint32(b, uint32(int32(g.Demotion)))
	}
	for _, g := range h.roles {
		marks := g.Marks[:min(len(g.Marks), marksMax)]
		b = append(b, byte(len(marks)))
		for _, m := range marks {
			b = binary.BigEndian.AppendUint64(b, m.Node)
			b = binary.BigEndian.AppendUint64(b, m.Epoch)
			b = binary.BigEndian.AppendUint64(b, m.Counter)
		}
		targets := g.Targets[:min(len(g.Targets), targetsMax)]
		b = append(b, g.Ears, byte(len(targets)))
		for _, a := range targets {
			v := a.As4()
			b = append(b, v[:]...)
		}
	}
	if keys := h.keys[:min(len(h.keys), keysMax)]; len(keys) > 0 {
		b = append(append(b, byte(len(keys))), keys...)
	}
	endMessage(b, at)
	return b
}

// parseBeat reads a heartbeat. Earlier versions end it after the roles or the
// marks; bytes after the keys are for later ones.
func parseBeat(body []byte, h *beat) error {
	r := reader{b: body}
	*h = beat{want: r.u32(), serve: r.u32(), phase: bulkPhase(r.u8()), count: r.u32(),
		dirty: r.u32(), heard: r.u16(), flows: r.u32()}
	n := int(r.u8())
	for range n {
		if r.short {
			break
		}
		h.roles = append(h.roles, GroupRole{Name: r.text(), State: r.u8(), Term: r.u64(),
			Demotion: int(int32(r.u32()))})
	}
	if r.short {
		return fmt.Errorf("heartbeat of %d bytes: %w", len(body), errFrame)
	}
	if len(r.b) == 0 {
		return nil
	}
	for i := range h.roles {
		for range min(int(r.u8()), marksMax) {
			h.roles[i].Marks = append(h.roles[i].Marks, Mark{Node: r.u64(), Epoch: r.u64(), Counter: r.u64()})
		}
		h.roles[i].Ears = r.u8()
		for range min(int(r.u8()), targetsMax) {
			if v := r.take(4); len(v) == 4 {
				h.roles[i].Targets = append(h.roles[i].Targets, netip.AddrFrom4([4]byte(v)))
			}
		}
	}
	if r.short {
		return fmt.Errorf("marks in a heartbeat of %d bytes: %w", len(body), errFrame)
	}
	if len(r.b) == 0 {
		return nil
	}
	h.keys = r.take(min(int(r.u8()), keysMax))
	if r.short {
		return fmt.Errorf("keys in a heartbeat of %d bytes: %w", len(body), errFrame)
	}
	return nil
}
