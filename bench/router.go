package bench

import (
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"strings"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// A router tells daemons by HTTP (/routing/v1) what routing tells the stock
// client: who has what, at once.
type router struct {
	srv  *http.Server
	url  string
	done chan struct{}
}

// openRouter starts one that answers from sd. It must be closed.
func openRouter(sd *side) (*router, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &router{url: "http://" + l.Addr().String(), done: make(chan struct{})}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /routing/v1/providers/{cid}", func(w http.ResponseWriter, q *http.Request) {
		c, err := cid.Decode(q.PathValue("cid"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		var ps []peer.AddrInfo
		for p := range sd.FindProvidersAsync(q.Context(), c, 0) {
			ps = append(ps, p)
		}
		answer(w, q, "Providers", ps)
	})
	mux.HandleFunc("GET /routing/v1/peers/{peer}", func(w http.ResponseWriter, q *http.Request) {
		var ps []peer.AddrInfo
		for _, p := range sd.peers {
			if id, err := peer.Decode(q.PathValue("peer")); err == nil && id == p.ID {
				ps = append(ps, p)
			}
		}
		answer(w, q, "Peers", ps)
	})
	r.srv = &http.Server{Handler: mux}
	go func() {
		defer close(r.done)
		_ = r.srv.Serve(l) // until Close
	}()
	return r, nil
}

// answer writes peer records, as lines if that is asked for.
func answer(w http.ResponseWriter, q *http.Request, field string, ps []peer.AddrInfo) {
	type record struct {
		Schema    string
		ID        peer.ID
		Addrs     []string
		Protocols []string
	}
	rs := []record{}
	for _, p := range ps {
		r := record{Schema: "peer", ID: p.ID, Protocols: []string{"transport-bitswap"}}
		for _, a := range p.Addrs {
			r.Addrs = append(r.Addrs, a.String())
		}
		rs = append(rs, r)
	}
	enc := json.NewEncoder(w)
	if strings.Contains(q.Header.Get("Accept"), "application/x-ndjson") {
		w.Header().Set("Content-Type", "application/x-ndjson")
		for _, r := range rs {
			_ = enc.Encode(r) // to one who may have left
		}
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = enc.Encode(map[string][]record{field: rs})
}

// Close returns when it no longer listens.
func (r *router) Close() error {
	err := r.srv.Close()
	<-r.done
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
