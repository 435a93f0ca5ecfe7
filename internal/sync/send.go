package sync

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"time"

	"go.uber.org/zap"
)

// send is the one goroutine that seals frames for the peer. It asks next what
// to do until there is nothing, then waits for a kick or the time next named.
func (m *Mirror) send(ctx context.Context, p *peer) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var buf []byte
	for {
		m.mu.Lock()
		now := m.now()
		o := p.next(now)
		m.mu.Unlock()
		switch {
		case o.raw != nil:
			m.write(p, o.raw)
			continue
		case o.seq != 0:
			buf = o.session.seal(buf[:0], o.seq, p.plain)
			m.write(p, buf)
			continue
		case o.again:
			continue
		}
		timer.Reset(o.wait)
		select {
		case <-ctx.Done():
			return nil
		case <-p.wake:
		case <-timer.C:
		}
	}
}

func (m *Mirror) write(p *peer, b []byte) {
	n, err := m.conn.writeTo(b, p.addr)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err != nil {
		p.stats.dropped(dropSend) // a full or absent link; what was lost is sent again
		return
	}
	p.stats.Frames++
	p.stats.Bytes += uint64(n)
}

// output is one thing for Mirror.send to do.
type output struct {
	raw     []byte   // a frame of the handshake
	session *Session // p.plain is to be sealed with seq, if that is not 0
	seq     uint64
	again   bool // ask again at once
	wait    time.Duration
}

// next decides what goes to the peer now.
func (p *peer) next(now time.Duration) output {
	if p.dropping {
		if !p.abandon(1024) {
			return output{again: true}
		}
		p.dropping = false
		if p.m.own {
			p.dirty++ // changes in the meantime were not queued
			p.beatAt = 0
		}
		p.m.work()
	}
	if raw := p.shake(now); raw != nil {
		return output{raw: raw}
	}
	if p.session == nil {
		return output{wait: p.handshakeAt - now}
	}
	if now-p.lastHeard >= lostAfter {
		p.lose(now)
		return output{again: true}
	}
	p.expire(now)
	if p.initiator && now-p.established >= rekeyEvery && p.handshake == nil && !p.rehandshake {
		p.rehandshake, p.handshakeAt, p.backoff = true, now, handshakeMin
		return output{again: true}
	}

	b := append(p.plain[:0], p.flags())
	if len(p.told) > 0 { // a frame of its own: a heartbeat may be as long as one
		p.plain = p.loadTold(b)
		return output{session: p.session, seq: p.session.next()}
	}
	if now >= p.beatAt {
		p.beatAt = now + beatEvery
		b = appendBeat(b, p.beat(now))
	}
	if p.ackDue {
		p.ackDue = false
		b = appendAck(b, &p.session.applied)
	}
	seq := uint64(0)
	if p.sendable(now) {
		seq = p.session.next()
		b = p.load(b, seq, now)
	}
	p.plain = b
	if len(b) > 1 {
		if seq == 0 {
			seq = p.session.next()
		}
		return output{session: p.session, seq: seq}
	}
	return output{wait: p.wait(now)}
}

// wait returns how long nothing will be due.
func (p *peer) wait(now time.Duration) time.Duration {
	t := min(p.beatAt, p.lastHeard+lostAfter)
	if p.handshake != nil || p.rehandshake {
		t = min(t, p.handshakeAt)
	}
	if p.flight.n > 0 {
		t = min(t, p.flight.first().at+p.flight.rto())
	}
	if p.head != nil && p.m.own && !p.flight.full() {
		t = min(t, p.lastData+coalesce)
	}
	return t - now
}

func (p *peer) flags() byte {
	var f byte
	if p.m.own {
		f |= flagOwner
	}
	if p.synced {
		f |= flagSynced
	}
	return f
}

func (p *peer) beat(now time.Duration) *beat {
	return &beat{
		want:  p.want,
		serve: p.serve.id,
		phase: p.serve.phase,
		count: p.serve.count,
		dirty: p.dirty,
		heard: uint16(min((now-p.lastHeard)/time.Millisecond, 1<<16-1)),
		flows: uint32(p.m.shadow.live),
		roles: p.m.roles,
		keys:  p.m.keyIDs,
	}
}

// expire makes what was not acknowledged in time pending again.
func (p *peer) expire(now time.Duration) {
	rto, expired := p.flight.rto(), false
	for p.flight.n > 0 && now-p.flight.first().at >= rto {
		p.stats.Resent += uint64(len(p.flight.first().entries))
		p.stats.LostFrames++
		p.requeue(now)
		expired = true
	}
	if expired {
		p.flight.backoff++
	}
}

// sendable reports whether flows may go now: at once when the link was idle,
// else when a frame is full or its time has come.
func (p *peer) sendable(now time.Duration) bool {
	if p.head == nil || !p.m.own || p.flight.full() {
		return false
	}
	return p.pending*minRecord >= p.m.payload || now-p.lastData >= coalesce || p.lastData == 0
}

// minRecord is about the size of the smallest record, to guess whether a frame
// will be full.
const minRecord = 14

// load appends pending flows to the frame until it is full.
func (p *peer) load(b []byte, seq uint64, now time.Duration) []byte {
	room := p.m.payload - headerLen - tagLen - maxRecord
	at := len(b)
	b = beginMessage(b, msgFlows)
	f := p.flight.push(seq, now)
	for p.head != nil && len(b) < room {
		e := p.dequeue()
		s := p.slot(e)
		if p.m.shadow.source(e) != nil && !e.dead || e.dead && !s.known && s.sent == 0 {
			s.sent = 0
			p.settle(e) // not ours to tell; or gone before it was told
			continue
		}
		b = appendRecord(b, &e.flow, e.dead)
		s.sent, s.known = seq, true
		f.entries = append(f.entries, e)
	}
	if len(f.entries) == 0 {
		p.flight.n--
		p.checkServed()
		return b[:at]
	}
	p.stats.Sent += uint64(len(f.entries))
	p.lastData = now
	endMessage(b, at)
	return b
}

// shake returns the handshake frame that is due, if one is.
func (p *peer) shake(now time.Duration) []byte {
	if p.session != nil && !p.rehandshake && p.handshake == nil || now < p.handshakeAt {
		return nil
	}
	p.handshakeAt = now + p.backoff
	p.backoff = min(p.backoff*2, handshakeMax)
	if !p.initiator {
		if p.session != nil {
			return nil
		}
		return []byte{frameHello}
	}
	p.rehandshake = false
	i, frame, err := initiate(&p.m.keys[0], p.m.greeting(p))
	if err != nil {
		p.log.Error("begin handshake", zap.Error(err))
		return nil
	}
	p.handshake = i
	return frame
}

// greeting is ours for the next handshake with the peer.
func (m *Mirror) greeting(p *peer) greeting {
	m.shakes++
	return greeting{session: newID(), boot: m.boot, counter: m.shakes, from: m.cfg.Node, to: p.name}
}

// newID returns a random session id that is not 0.
func newID() uint32 {
	var b [4]byte
	rand.Read(b[:]) // never fails
	return binary.BigEndian.Uint32(b[:]) | 1
}
