package bench

import (
	"testing"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// TestConnectionsByQUICAreCounted: a holder that listens by both is reached by the one that is dialled.
func TestConnectionsByQUICAreCounted(t *testing.T) {
	h, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"), libp2p.DisableMetrics())
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if len(h.Addrs()) != 2 {
		t.Fatalf("it listens at %v, want TCP and QUIC", h.Addrs())
	}
	for _, a := range h.Addrs() {
		from, err := libp2p.New(libp2p.NoListenAddrs, libp2p.DisableMetrics())
		if err != nil {
			t.Fatal(err)
		}
		defer from.Close()
		if err := from.Connect(t.Context(), peer.AddrInfo{ID: h.ID(), Addrs: []ma.Multiaddr{a}}); err != nil {
			t.Fatal(err)
		}
		want := 0.0
		if _, err := a.ValueForProtocol(ma.P_QUIC_V1); err == nil {
			want = 100
		}
		if got := byQUIC(from); got != want {
			t.Errorf("dialled %v: %v %% by QUIC, want %v", a, got, want)
		}
	}
}
