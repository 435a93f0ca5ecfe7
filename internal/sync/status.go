package sync

import (
	"errors"
	"maps"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// drop is why a frame, or a record in it, was not taken.
type drop uint8

const (
	dropShort drop = iota
	dropType
	dropHandshake
	dropKey
	dropName
	dropVersion
	dropReplay
	dropSession
	dropLate
	dropForged
	dropMalformed
	dropBusy
	dropNotOwner
	dropOurs
	dropLocal
	dropSend
	drops
)

var dropNames = [drops]string{
	dropShort:     "short",
	dropType:      "unknown type",
	dropHandshake: "unexpected handshake",
	dropKey:       "other key",
	dropName:      "other name",
	dropVersion:   "other version",
	dropReplay:    "replayed handshake",
	dropSession:   "unknown session",
	dropLate:      "late or replayed",
	dropForged:    "not authentic",
	dropMalformed: "malformed",
	dropBusy:      "table busy",
	dropNotOwner:  "record of no owner",
	dropOurs:      "delete of a flow of ours",
	dropLocal:     "record of a local flow",
	dropSend:      "not sent",
}

// PeerStatus is what an operator may want to know about one peer. Counters
// count since New.
type PeerStatus struct {
	Peer      string
	Up        bool          // there is a session, heard within the last second
	InSync    bool          // both tables hold the same, as far as both know
	Owner     bool          // the peer is MASTER of a group
	Lag       time.Duration // from an event to the peer's ack, moving average
	RTT       time.Duration // of a data frame and its ack, moving average
	Flows     int           // known here
	PeerFlows int           // known there, by its last heartbeat
	Pending   int           // waiting to be sent
	InFlight  int           // frames sent and not acknowledged
	LastSeen  time.Time     // last valid frame, zero: never
	Keys      []byte        // ids of the keys it accepts, the one it signs with first; none: it did not say

	Counters
}

// Counters are the monotonic part of a PeerStatus.
type Counters struct {
	Sent, Received   uint64 // records
	Resent           uint64 // records that were lost, or not acknowledged in time
	LostFrames       uint64 // data frames for the same reasons
	Frames, FramesIn uint64
	Bytes, BytesIn   uint64            // of UDP payload
	Gaps             uint64            // frames of the peer that never came, or late
	Swept            uint64            // flows deleted as a bulk update did not mention them
	Overflows        uint64            // queues given up for a bulk update
	Overruns         uint64            // times that the kernel lost events (of the node)
	Reinjected       uint64            // flows put back into the table (of the node)
	Resyncs          map[string]uint64 // bulk updates asked for, by cause
	InsertErrors     map[string]uint64 // changes the kernel refused, by errno
	Dropped          map[string]uint64 // frames and records not taken, by reason
}

// stats is Counters as they are counted.
type stats struct {
	Counters
	drops [drops]uint64
	lag   time.Duration
}

func newStats() stats {
	return stats{Counters: Counters{Resyncs: make(map[string]uint64), InsertErrors: make(map[string]uint64)}}
}

func (s *stats) dropped(why drop) { s.drops[why]++ }

func (s *stats) lagged(d time.Duration) {
	if s.lag == 0 {
		s.lag = d
		return
	}
	s.lag += (d - s.lag) / 16
}

func (s *stats) failed(err error) {
	var e unix.Errno
	name := "other"
	if errors.As(err, &e) {
		if name = unix.ErrnoName(e); name == "" {
			name = strconv.Itoa(int(e))
		}
	}
	s.InsertErrors[name]++
}

// Status returns the state of all peers, by name.
func (m *Mirror) Status() []PeerStatus {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make([]PeerStatus, 0, len(m.peers))
	for _, p := range m.peers {
		s := PeerStatus{
			Peer:      p.name,
			Up:        p.up(),
			InSync:    p.up() && p.synced && p.peerSynced,
			Owner:     p.owner,
			Lag:       p.stats.lag,
			RTT:       p.flight.srtt,
			Flows:     m.shadow.live,
			PeerFlows: int(p.peerFlows),
			Pending:   p.pending,
			InFlight:  p.flight.n,
			LastSeen:  p.lastSeen,
			Keys:      slices.Clone(p.peerKeys),
			Counters:  p.stats.Counters,
		}
		s.Overruns, s.Reinjected = m.overruns, m.reinjected
		s.Resyncs, s.InsertErrors = maps.Clone(s.Resyncs), maps.Clone(s.InsertErrors)
		s.Dropped = make(map[string]uint64)
		for why, n := range p.stats.drops {
			if n > 0 {
				s.Dropped[dropNames[why]] = n
			}
		}
		all = append(all, s)
	}
	return all
}

// Strangers returns how many frames came from addresses of no peer.
func (m *Mirror) Strangers() uint64 { return m.strangers.Load() }
