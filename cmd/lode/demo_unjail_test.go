package main

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/chain"
	"github.com/lode-node/lode/chain/gpos"
	"github.com/lode-node/lode/node"
)

// The demo that is left running brings its restarted node back from jail: as that node, and not before the jail allows it.
func TestKeepUnjails(t *testing.T) {
	home := t.TempDir()
	key, err := node.NewKey(filepath.Join(home, "key"))
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name       string
		until, era gpos.Era
		code       uint32
		want       string // in what is said, or in the error
		sends      bool
	}{
		{"not jailed", 0, 7, 0, "", false},
		{"too early", 8, 7, 0, "from era 8 on this brings it back", false},
		{"in time", 8, 8, chain.CodeOK, "let out of jail", true},
		{"refused", 8, 9, chain.CodeRefused, "stake unjail --home " + home, true},
	} {
		var sent []chain.Tx
		mux := http.NewServeMux()
		answer := func(path string, v any) {
			mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(v) })
		}
		var st stakeAnswer
		st.Stake.Account, st.Stake.Ledger.JailedUntil = id, c.until
		answer("GET /lode/v1/stake/"+id.String(), st)
		answer("GET /lode/v1/status", statusAnswer{ID: id, Era: c.era})
		answer("GET /lode/v1/params", paramsAnswer{Params: node.Params{ChainID: "dev-x"}})
		answer("GET /lode/v1/accounts/"+id.String()+"/pending", pendingAnswer{ID: id, Nonce: 4, Next: 5})
		mux.HandleFunc("POST /lode/v1/tx", func(w http.ResponseWriter, r *http.Request) {
			raw, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			tx, err := chain.DecodeTx(raw)
			if err != nil {
				t.Error(err)
			}
			sent = append(sent, tx)
			_ = json.NewEncoder(w).Encode(txAnswer{Code: c.code})
		})
		socket := filepath.Join(t.TempDir(), "s")
		l, err := net.Listen("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		srv := &http.Server{Handler: mux}
		done := make(chan struct{})
		go func() { defer close(done); _ = srv.Serve(l) }()

		m := member{Name: "n2", ID: id, Home: home, Socket: filepath.Join(home, "gone")}
		d := &demo{net: &network{Members: []member{{}, {}, m, {}, {Socket: socket}}}}
		said, err := d.unjail(context.Background(), m)
		srv.Close()
		<-done
		if err != nil {
			said += err.Error()
		}
		if (err != nil) != (c.name == "refused") || !strings.Contains(said, c.want) || c.want == "" && said != "" {
			t.Errorf("%s: got %q, %v, want %q", c.name, said, err, c.want)
		}
		if (len(sent) == 1) != c.sends {
			t.Errorf("%s: sent %v", c.name, sent)
		} else if c.sends {
			if b := sent[0].Body; b.Sender != id || b.Nonce != 5 || b.Msg.Stake == nil || b.Msg.Stake.Unjail == nil {
				t.Errorf("%s: sent %+v, want an unjail by %v", c.name, b, id)
			}
		}
	}
}
