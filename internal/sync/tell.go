package sync

import "slices"

// What others than the mirror tell a peer travels in data frames of its session, so
// it is secret, genuine, and in order; but a frame that gets lost is not sent again.

// toldMax bounds what waits for a peer: a newer message pushes out the oldest.
const toldMax = 16

// Tell sends a message to a peer, whose OnPeer is called with it. It reports whether
// there is a session to send it in, and does not wait. What does not fit into a frame
// is nobody's message: it panics.
func (m *Mirror) Tell(name string, body []byte) bool {
	if len(body) > m.payload-headerLen-tagLen-1-msgHeader {
		panic("sync: a message longer than a frame")
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range m.peers {
		if p.name != name || p.session == nil {
			continue
		}
		if len(p.told) == toldMax {
			p.told = p.told[1:]
		}
		p.told = append(p.told, slices.Clone(body))
		p.kick()
		return true
	}
	return false
}

// loadTold appends what waits for the peer, as far as there is room.
func (p *peer) loadTold(b []byte) []byte {
	room := p.m.payload - headerLen - tagLen
	for len(p.told) > 0 && len(b)+msgHeader+len(p.told[0]) <= room {
		at := len(b)
		b = beginMessage(b, msgTold)
		b = append(b, p.told[0]...)
		endMessage(b, at)
		p.told = p.told[1:]
	}
	return b
}
