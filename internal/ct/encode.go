package ct

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// ErrFlow is a flow that the kernel's table cannot hold.
var ErrFlow = errors.New("not a TCP, UDP, ICMP or ICMPv6 flow")

func (t *Tuple) valid() error {
	switch t.Proto {
	case unix.IPPROTO_TCP, unix.IPPROTO_UDP:
	case unix.IPPROTO_ICMP:
		if !t.Src.Is4() {
			return ErrFlow
		}
	case unix.IPPROTO_ICMPV6:
		if !t.Src.Is6() {
			return ErrFlow
		}
	default:
		return ErrFlow
	}
	if !t.Src.IsValid() || !t.Dst.IsValid() || t.Src.Is4() != t.Dst.Is4() {
		return fmt.Errorf("from %v to %v: %w", t.Src, t.Dst, ErrFlow)
	}
	return nil
}

// valid checks what would make the kernel read a message in another sense.
// Above all a delete without tuple, which flushes the table.
func (f *Flow) valid() error {
	if err := f.Orig.valid(); err != nil {
		return err
	}
	if err := f.Reply.valid(); err != nil {
		return fmt.Errorf("reply: %w", err)
	}
	if f.Orig.Proto != f.Reply.Proto || f.Orig.Src.Is4() != f.Reply.Src.Is4() {
		return fmt.Errorf("reply of another protocol: %w", ErrFlow)
	}
	return nil
}

// message appends netlink messages to a buffer. It is a value: what is built
// so far, and where the message that is being built starts.
type message struct {
	b     []byte
	start int
}

func (m *message) begin(typ, flags uint16, seq uint32, family uint8) {
	m.start = len(m.b)
	var h [nlmsgLen + nfgenLen]byte
	binary.NativeEndian.PutUint16(h[4:], typ)
	binary.NativeEndian.PutUint16(h[6:], flags|unix.NLM_F_REQUEST)
	binary.NativeEndian.PutUint32(h[8:], seq)
	h[nlmsgLen] = family
	m.b = append(m.b, h[:]...)
}

func (m *message) end() {
	binary.NativeEndian.PutUint32(m.b[m.start:], uint32(len(m.b)-m.start))
}

func (m *message) nest(typ uint16) int {
	at := len(m.b)
	m.head(typ|attrNested, 0)
	return at
}

func (m *message) unnest(at int) {
	binary.NativeEndian.PutUint16(m.b[at:], uint16(len(m.b)-at))
}

func (m *message) head(typ uint16, n int) {
	m.b = binary.NativeEndian.AppendUint16(m.b, uint16(attrLen+n))
	m.b = binary.NativeEndian.AppendUint16(m.b, typ)
}

func (m *message) u8(typ uint16, v uint8) {
	m.head(typ, 1)
	m.b = append(m.b, v, 0, 0, 0)
}

func (m *message) u16(typ uint16, v uint16) {
	m.head(typ, 2)
	m.b = append(m.b, byte(v>>8), byte(v), 0, 0)
}

func (m *message) u32(typ uint16, v uint32) {
	m.head(typ, 4)
	m.b = binary.BigEndian.AppendUint32(m.b, v)
}

// addr writes a as v4 or v6, which are the attribute types for the families.
func (m *message) addr(v4, v6 uint16, a netip.Addr) {
	if a.Is4() {
		v := a.As4()
		m.head(v4, len(v))
		m.b = append(m.b, v[:]...)
		return
	}
	v := a.As16()
	m.head(v6, len(v))
	m.b = append(m.b, v[:]...)
}

func (m *message) tuple(typ uint16, t *Tuple) {
	at := m.nest(typ)
	ip := m.nest(ctaTupleIP)
	m.addr(ctaIPv4Src, ctaIPv6Src, t.Src)
	m.addr(ctaIPv4Dst, ctaIPv6Dst, t.Dst)
	m.unnest(ip)
	proto := m.nest(ctaTupleProto)
	m.u8(ctaProtoNum, t.Proto)
	if t.isICMP() {
		first := uint16(ctaICMPID)
		if t.Proto == unix.IPPROTO_ICMPV6 {
			first = ctaICMPv6ID
		}
		m.u16(first, t.SrcPort)
		m.u8(first+1, uint8(t.DstPort>>8))
		m.u8(first+2, uint8(t.DstPort))
	} else {
		m.u16(ctaProtoSrcPort, t.SrcPort)
		m.u16(ctaProtoDstPort, t.DstPort)
	}
	m.unnest(proto)
	m.unnest(at)
}

// nat binds one end to exactly this address and port; without port to the
// address only. MIN = MAX: the kernel must not choose.
func (m *message) nat(typ uint16, a netip.Addr, port uint16, withPort bool) {
	at := m.nest(typ)
	m.addr(ctaNATv4Min, ctaNATv6Min, a)
	m.addr(ctaNATv4Max, ctaNATv6Max, a)
	if withPort {
		p := m.nest(ctaNATProto)
		m.u16(ctaProtonatMin, port)
		m.u16(ctaProtonatMax, port)
		m.unnest(p)
	}
	m.unnest(at)
}

// tcp tells the state and that the windows are not known. Flags and scales go
// together: the kernel takes the scales only when both directions have the
// WINDOW_SCALE flag.
func (m *message) tcp(t *TCP) {
	at := m.nest(ctaProtoinfo)
	tcp := m.nest(ctaProtoinfoTCP)
	m.u8(ctaTCPState, uint8(t.State))
	m.u8(ctaTCPWScaleOrig, t.WScaleOrig)
	m.u8(ctaTCPWScaleReply, t.WScaleReply)
	m.head(ctaTCPFlagsOrig, 2)
	m.b = append(m.b, t.FlagsOrig&tcpFlagsMask|tcpFlagsInjected, tcpFlagsMask, 0, 0)
	m.head(ctaTCPFlagsReply, 2)
	m.b = append(m.b, t.FlagsReply&tcpFlagsMask|tcpFlagsInjected, tcpFlagsMask, 0, 0)
	m.unnest(tcp)
	m.unnest(at)
}

// create makes the entry, and fails with EEXIST when any entry has one of the
// two tuples.
func (m *message) create(seq uint32, f *Flow) {
	m.begin(ctNew, unix.NLM_F_CREATE|unix.NLM_F_EXCL, seq, family(f.Orig.Src))
	m.tuple(ctaTupleOrig, &f.Orig)
	reply := f.Reply
	translated := f.translated()
	if translated {
		// The kernel marks an entry as translated only if CTA_NAT_* makes a
		// difference to the reply tuple it is given (nf_nat_setup_info).
		reply = f.Orig.Inverse()
	}
	m.tuple(ctaTupleReply, &reply)
	if translated {
		// Both ends, also the one that stays: for an end without attribute
		// the kernel makes a binding of its own and may choose a port.
		icmp := f.Orig.isICMP()
		dst, dport, _ := f.DNAT()
		m.nat(ctaNATDst, dst, dport, !icmp)
		src, sport, _ := f.SNAT()
		m.nat(ctaNATSrc, src, sport, true)
	}
	m.u32(ctaTimeout, seconds(f.Timeout))
	m.u32(ctaStatus, uint32(f.Status&(SeenReply|Assured))|statusConfirmed)
	if f.Orig.Proto == unix.IPPROTO_TCP {
		tcp := f.TCP
		if tcp.State == TCPNone { // an update told only the rest
			tcp.State = TCPSynSent
			if f.Status&SeenReply != 0 {
				tcp.State = TCPEstablished
			}
		}
		m.tcp(&tcp)
	}
	m.u32(ctaMark, f.Mark)
	m.end()
}

// update makes the entry cur, which has the tuples of f, like f; but never less
// than it is.
func (m *message) update(seq uint32, f *Flow, cur *record) {
	m.begin(ctNew, 0, seq, family(f.Orig.Src))
	m.tuple(ctaTupleOrig, &f.Orig)
	m.tuple(ctaTupleReply, &f.Reply)
	tcp := f.Orig.Proto == unix.IPPROTO_TCP && f.TCP.State != TCPNone
	if stale := tcp && f.TCP.State.rank() < cur.TCP.State.rank(); !stale {
		m.u32(ctaTimeout, seconds(f.Timeout))
		if tcp {
			m.tcp(&f.TCP)
		}
	}
	// SEEN_REPLY and ASSURED can be set and not cleared, CONFIRMED and
	// EXPECTED must be repeated: EBUSY otherwise.
	m.u32(ctaStatus, uint32((f.Status|cur.Status)&(SeenReply|Assured))|statusConfirmed|cur.status&statusExpected)
	m.u32(ctaMark, f.Mark)
	m.end()
}

// rank orders the states by progress.
func (s TCPState) rank() TCPState {
	if s == TCPSynSent2 {
		return TCPSynSent
	}
	return s
}

// find asks for the entry that has t as one of its tuples.
func (m *message) find(seq uint32, t *Tuple) {
	m.begin(ctGet, 0, seq, family(t.Src))
	m.tuple(ctaTupleOrig, t)
	m.end()
}

// remove deletes the entry that has t as one of its tuples; with an id only if
// it is that entry.
func (m *message) remove(seq uint32, t *Tuple, id uint32) {
	m.begin(ctDelete, 0, seq, family(t.Src))
	m.tuple(ctaTupleOrig, t)
	if id != 0 {
		m.u32(ctaID, id)
	}
	m.end()
}

func family(a netip.Addr) uint8 {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// seconds rounds down to at least one: zero would end the entry at once.
func seconds(d time.Duration) uint32 {
	return uint32(min(max(d/time.Second, 1), 1<<31-1))
}
