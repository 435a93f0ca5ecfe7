package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os/user"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// DemoteRequest is the body of POST /v1/demotions.
type DemoteRequest struct {
	Group  string  `json:"group,omitempty"` // empty: all
	By     int     `json:"by"`
	ForS   float64 `json:"for_s,omitempty"` // seconds; 0: until it is taken back
	Reason string  `json:"reason,omitempty"`
}

// Handle adds what an operator may change.
//
//	POST   /v1/demotions       DemoteRequest → Demotion
//	DELETE /v1/demotions       → the demotions that are gone: all
//	DELETE /v1/demotions/{id}  → that one
func (o *operator) Handle(mux *http.ServeMux) {
	mux.HandleFunc("POST /v1/demotions", func(w http.ResponseWriter, r *http.Request) {
		var in DemoteRequest
		dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, 4096))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&in); err != nil {
			answer(w, nil, refusal("not a demotion: "+err.Error()))
			return
		}
		if in.ForS < 0 || in.ForS > maxFor.Seconds() {
			in.ForS = -1
		}
		d, err := o.Demote(Demotion{Group: in.Group, By: in.By, Reason: in.Reason, User: asker(r)}, time.Duration(in.ForS*float64(time.Second)))
		answer(w, d, err)
	})
	undemote := func(w http.ResponseWriter, r *http.Request, id int) {
		gone, err := o.Undemote(id, asker(r))
		answer(w, append([]Demotion{}, gone...), err)
	}
	mux.HandleFunc("DELETE /v1/demotions", func(w http.ResponseWriter, r *http.Request) { undemote(w, r, 0) })
	mux.HandleFunc("DELETE /v1/demotions/{id}", func(w http.ResponseWriter, r *http.Request) {
		id, err := strconv.Atoi(r.PathValue("id"))
		if err != nil || id < 1 {
			answer(w, nil, refusal(fmt.Sprintf("%q is not the id of a demotion", r.PathValue("id"))))
			return
		}
		undemote(w, r, id)
	})
}

// answer writes the value, or what was wrong as text.
func answer(w http.ResponseWriter, v any, err error) {
	var no refusal
	switch {
	case errors.As(err, &no):
		http.Error(w, err.Error(), http.StatusBadRequest)
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	default:
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(v) // the client has gone
	}
}

// asker names who asks, for the log.
func asker(r *http.Request) string {
	cred, _ := r.Context().Value(credKey{}).(*unix.Ucred)
	if cred == nil {
		return ""
	}
	id := strconv.Itoa(int(cred.Uid))
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return id
}

// Demote asks the daemon of the run-dir to demote.
func Demote(ctx context.Context, runDir string, in DemoteRequest) (Demotion, error) {
	var d Demotion
	return d, ask(ctx, runDir, http.MethodPost, "/v1/demotions", in, &d)
}

// Undemote asks the daemon of the run-dir to take a demotion back, or all with
// id 0, and returns them.
func Undemote(ctx context.Context, runDir string, id int) ([]Demotion, error) {
	path := "/v1/demotions"
	if id != 0 {
		path += "/" + strconv.Itoa(id)
	}
	var gone []Demotion
	return gone, ask(ctx, runDir, http.MethodDelete, path, nil, &gone)
}
