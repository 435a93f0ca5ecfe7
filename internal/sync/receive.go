package sync

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/xcarp/xcarp/internal/ct"
)

// receive is the one goroutine that reads the link and opens frames.
func (m *Mirror) receive(ctx context.Context) error {
	buf, plain := make([]byte, 1<<16), make([]byte, 0, 1<<16)
	for {
		n, from, err := m.conn.readFrom(buf)
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("read sync link: %w", err)
		}
		if err != nil {
			// An ICMP error of an absent peer, or the link is down: it will
			// be seen as silence.
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(time.Millisecond):
			}
			continue
		}
		m.frame(buf[:n], from, plain)
	}
}

// frame handles one datagram.
func (m *Mirror) frame(b []byte, from netip.AddrPort, plain []byte) {
	p := m.byAddr[netip.AddrPortFrom(from.Addr().Unmap(), from.Port())]
	if p == nil {
		m.strangers.Add(1)
		return
	}
	if len(b) == 0 {
		m.drop(p, dropShort)
		return
	}
	switch b[0] {
	case frameHello:
		m.hello(p)
	case frameInit:
		m.init(p, b)
	case frameResp:
		m.resp(p, b)
	case frameData:
		m.data(p, b, plain)
	default:
		m.drop(p, dropType)
	}
}

func (m *Mirror) drop(p *peer, why drop) {
	m.mu.Lock()
	p.stats.dropped(why)
	m.mu.Unlock()
}

// hello starts a handshake beside whatever session there is. Anybody can send
// one, so it does no more than that, and not often.
func (m *Mirror) hello(p *peer) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	if !p.initiator || p.handshake != nil || p.poked != 0 && now-p.poked < pokedPause {
		return
	}
	p.poked, p.rehandshake, p.handshakeAt, p.backoff = now, true, now, handshakeMin
	p.kick()
}

// init answers a handshake. The session stays unproven until a data frame under
// it arrives: whoever replays a handshake cannot write one.
func (m *Mirror) init(p *peer, b []byte) {
	m.mu.Lock()
	now := m.now()
	if p.initiator || len(b) < 5 || p.initAt != 0 && now-p.initAt < initPause {
		p.stats.dropped(dropHandshake)
		m.mu.Unlock()
		return
	}
	answer, keys := m.greeting(p), m.keys
	m.mu.Unlock()

	s, g, frame, err := respondAny(keys, b[5:], answer)
	m.mu.Lock()
	if err != nil {
		p.refused(err, now)
		m.mu.Unlock()
		return
	}
	if g.session != binary.BigEndian.Uint32(b[1:]) || g.boot == p.peerBoot && g.counter <= p.peerCounter {
		p.stats.dropped(dropReplay)
		m.mu.Unlock()
		return
	}
	p.initAt = now
	p.peerBoot, p.peerCounter = g.boot, g.counter
	if len(p.unproven) == maxPending {
		p.unproven = p.unproven[1:]
	}
	p.unproven = append(p.unproven, s)
	m.mu.Unlock()
	m.write(p, frame)
}

// resp finishes our handshake. The answer is bound to our fresh key, so it
// proves that the peer is there now.
func (m *Mirror) resp(p *peer, b []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	if len(b) < 5 || p.handshake == nil || binary.BigEndian.Uint32(b[1:]) != p.handshake.local {
		p.stats.dropped(dropHandshake)
		return
	}
	s, err := p.handshake.finish(b[5:], p.name, m.cfg.Node)
	if err != nil {
		p.refused(err, now)
		return
	}
	p.establish(s, now)
}

// refused counts a handshake that is not the peer's, and names it now and then.
func (p *peer) refused(err error, now time.Duration) {
	switch {
	case errors.Is(err, errKey):
		p.stats.dropped(dropKey)
	case errors.Is(err, errName):
		p.stats.dropped(dropName)
	case errors.Is(err, errVersion):
		p.stats.dropped(dropVersion)
	default:
		p.stats.dropped(dropHandshake)
	}
	if p.warned == 0 || now-p.warned >= time.Minute {
		p.warned = now
		p.log.Warn("handshake refused", zap.String("addr", p.addr.String()), zap.Error(err))
	}
}

// data opens a data frame and takes the messages in it.
func (m *Mirror) data(p *peer, b, plain []byte) {
	if len(b) < headerLen+tagLen+1 {
		m.drop(p, dropShort)
		return
	}
	id, seq := binary.BigEndian.Uint32(b[1:]), binary.BigEndian.Uint64(b[5:])
	m.mu.Lock()
	s := p.find(id)
	switch {
	case s == nil:
		p.stats.dropped(dropSession)
		if p.session == nil {
			p.handshakeAt = min(p.handshakeAt, m.now()+handshakeMin)
			p.kick()
		}
		m.mu.Unlock()
		return
	case seq <= s.top:
		p.stats.dropped(dropLate) // late, doubled or replayed: its flows come again
		m.mu.Unlock()
		return
	}
	m.mu.Unlock()

	plain, _, err := s.open(plain[:0], b)
	if err != nil {
		m.drop(p, dropForged)
		return
	}

	m.mu.Lock()
	now := m.now()
	if s != p.session {
		if p.find(id) != s {
			m.mu.Unlock()
			return // replaced meanwhile
		}
		p.establish(s, now)
	}
	if s.top != 0 && seq > s.top+1 {
		p.stats.Gaps += seq - s.top - 1
	}
	s.top = seq
	p.lastHeard, p.lastSeen = now, time.Now()
	if m.own && now-m.ownSince >= lostAfter {
		p.everUp = true
	}
	p.stats.FramesIn++
	p.stats.BytesIn += uint64(len(b))
	p.flagged(plain[0], now)
	m.mu.Unlock()

	if err := m.messages(p, s, seq, plain[1:]); err != nil {
		m.mu.Lock()
		p.stats.dropped(dropMalformed)
		p.log.Warn("frame of the peer", zap.Error(err))
		p.request(m.now(), "malformed", true)
		m.mu.Unlock()
	}
}

// find returns the session under the id, proven or not.
func (p *peer) find(id uint32) *Session {
	if p.session != nil && p.session.local == id {
		return p.session
	}
	for _, s := range p.unproven {
		if s.local == id {
			return s
		}
	}
	return nil
}

// flagged takes the flags of a frame.
func (p *peer) flagged(f byte, now time.Duration) {
	owner := f&flagOwner != 0
	p.peerSynced = f&flagSynced != 0
	defer func() { p.flagSeen = true }()
	if owner == p.owner {
		return
	}
	p.owner = owner
	if owner && p.flagSeen {
		p.want = 0 // an answer on its way is that of a node that owned nothing
		p.request(now, "owner", false)
	}
	p.m.work()
}

// messages takes the messages of one frame. Records are handed to
// Mirror.inject, in the order of the frames.
func (m *Mirror) messages(p *peer, s *Session, seq uint64, b []byte) error {
	for len(b) > 0 {
		kind, body, rest, err := nextMessage(b)
		if err != nil {
			return err
		}
		b = rest
		switch kind {
		case msgAck:
			var a ack
			if err := parseAck(body, &a); err != nil {
				return err
			}
			m.mu.Lock()
			if s == p.session {
				p.acked(&a, m.now())
				if p.head != nil {
					p.kick()
				}
			}
			m.mu.Unlock()
		case msgBeat:
			var h beat
			if err := parseBeat(body, &h); err != nil {
				return err
			}
			m.mu.Lock()
			if s == p.session {
				p.beaten(&h, m.now())
			}
			m.mu.Unlock()
			if m.cfg.OnRoles != nil {
				m.cfg.OnRoles(p.name, h.roles)
			}
		case msgTold:
			if m.cfg.OnPeer != nil {
				m.cfg.OnPeer(p.name, body)
			}
		case msgFlows:
			if err := m.records(p, s, seq, body); err != nil {
				return err
			}
		}
	}
	return nil
}

// beaten takes a heartbeat.
func (p *peer) beaten(h *beat, now time.Duration) {
	p.peerFlows, p.peerKeys = h.flows, slices.Clone(h.keys)
	p.asked(h.want)
	if p.want != 0 && h.serve == p.want {
		switch h.phase {
		case bulkEnd:
			p.answered(true, h.count, now)
		case bulkNotOwner:
			p.answered(false, 0, now)
		}
	}
	if p.dirtySeen && h.dirty != p.peerDirty {
		p.request(now, "peer", true)
	}
	p.peerDirty, p.dirtySeen = h.dirty, true
	if p.beatAt == 0 {
		p.kick()
	}
}

// records decodes the records of a frame and queues them for the table.
func (m *Mirror) records(p *peer, s *Session, seq uint64, body []byte) error {
	var x *batch
	select {
	case x = <-m.spare:
	default:
		x = new(batch)
	}
	x.peer, x.session, x.seq, x.records = p, s, seq, x.records[:0]
	for len(body) > 0 {
		var f ct.Flow
		del, n, err := parseRecord(body, &f)
		if err != nil {
			return err
		}
		body = body[n:]
		x.records = append(x.records, record{f, del})
	}
	select {
	case m.batches <- x:
	default:
		m.drop(p, dropBusy) // not acknowledged, so it comes again
	}
	return nil
}
