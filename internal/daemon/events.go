package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"go.uber.org/zap"

	"github.com/xcarp/xcarp/internal/journal"
)

// eventsWait is for how long a request for events that there are not yet waits. It
// is shorter than what the server gives an answer.
const eventsWait = 5 * time.Second

// serveEvents adds
//
//	GET /v1/events?after=N[&wait=1]   [journal.Event…] with higher numbers than N
//
// to the API. With wait the answer comes as soon as there is one, or empty after a
// while.
func (d *Daemon) serveEvents(mux *http.ServeMux) {
	mux.HandleFunc("GET /v1/events", func(w http.ResponseWriter, r *http.Request) {
		if d.Journal == nil {
			http.Error(w, "this daemon keeps no journal", http.StatusNotFound)
			return
		}
		var after uint64
		if s := r.URL.Query().Get("after"); s != "" {
			var err error
			if after, err = strconv.ParseUint(s, 10, 64); err != nil {
				http.Error(w, fmt.Sprintf("after=%s: write the number of an event", s), http.StatusBadRequest)
				return
			}
		}
		events := d.Journal.After(after)
		if len(events) == 0 && r.URL.Query().Get("wait") != "" {
			ctx, cancel := context.WithTimeout(r.Context(), eventsWait)
			defer cancel()
			events = d.Journal.Wait(ctx, after)
		}
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(append([]journal.Event{}, events...)); err != nil {
			d.log.Debug("events not delivered", zap.Error(err))
		}
	})
}

// Events returns what the daemon of the run-dir remembers with higher numbers than
// after; with wait it waits a few seconds for the first one.
func Events(ctx context.Context, runDir string, after uint64, wait bool) ([]journal.Event, error) {
	path := "/v1/events?after=" + strconv.FormatUint(after, 10)
	if wait {
		path += "&wait=1"
	}
	var events []journal.Event
	err := ask(ctx, runDir, http.MethodGet, path, nil, &events)
	return events, err
}

// AllEvents returns what is remembered: by the daemon of the run-dir, or without one
// by the files in the state-dir.
func AllEvents(ctx context.Context, p Paths) ([]journal.Event, error) {
	events, err := Events(ctx, p.Run, 0, false)
	if err == nil {
		return events, nil
	}
	if onDisk, diskErr := journal.Read(p.State); diskErr == nil && len(onDisk) > 0 {
		return onDisk, nil
	} else if diskErr != nil {
		err = errors.Join(err, diskErr)
	}
	return nil, err
}
