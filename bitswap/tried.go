package bitswap

import (
	"fmt"
	"time"
)

// Tried is something beyond the holders that a fetch turned to.
type Tried struct {
	What    string `json:"what"`              // "stock session", a router's name, or the URL of an HTTP provider
	Asked   uint64 `json:"asked"`             // blocks asked for, of a router: questions answered
	Found   uint64 `json:"found,omitempty"`   // providers that a router named
	Blocks  uint64 `json:"blocks,omitempty"`  // delivered before anybody else
	Bytes   uint64 `json:"bytes,omitempty"`   // of them
	Micros  int64  `json:"took_us,omitempty"` // of the last answer, µs
	Failure string `json:"failure,omitempty"` // the last
}

// triedStock names boxo's client among what was tried.
const triedStock = "stock session"

// triedKept bounds what is listed of one fetch.
const triedKept = 16

// try returns the line of what, which is one for all that is too much. The
// caller holds Exchange.mu.
func (r *record) try(what string) *Tried {
	for i := range r.Tried {
		if r.Tried[i].What == what {
			return &r.Tried[i]
		}
	}
	if len(r.Tried) == triedKept-1 {
		what = "others"
	}
	if len(r.Tried) == triedKept {
		return &r.Tried[triedKept-1]
	}
	r.Tried = append(r.Tried, Tried{What: what})
	return &r.Tried[len(r.Tried)-1]
}

// beyond says in parts of a sentence what was tried beyond the holders.
func (r *record) beyond() []string {
	var out []string
	for _, t := range r.Tried {
		switch {
		case t.Failure != "":
			out = append(out, t.What+": "+t.Failure)
		case t.What == triedStock:
			out = append(out, "connected peers asked")
		case t.Found > 0:
			out = append(out, fmt.Sprintf("%s: %d providers", t.What, t.Found))
		case t.Asked > 0 && t.Blocks == 0 && t.Micros > 0:
			out = append(out, fmt.Sprintf("%s: nothing, in %v", t.What, (time.Duration(t.Micros)*time.Microsecond).Round(time.Millisecond)))
		case t.Blocks == 0:
			out = append(out, t.What+": asked, no answer yet")
		}
	}
	return out
}
