package bitswap_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	boxo "github.com/ipfs/boxo/bitswap"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/lode-node/lode/bitswap"
)

func speaksBitswap(id protocol.ID) bool { return strings.Contains(string(id), "/bitswap") }

func TestAnswersComeOnTheStreamOfTheWants(t *testing.T) { // spec §6.4
	ctx := testContext(t)
	src := newStore()
	root, data := addFile(t, src, 4<<20, 60)
	server, h := newHost(t), newHost(t)
	newExchange(t, bitswap.Config{Host: server, Blocks: src})
	ex := newExchange(t, bitswap.Config{Host: h, Holders: held(root, info(server))})
	if err := h.Connect(ctx, info(server)); err != nil { // what the server speaks is known by then
		t.Fatal(err)
	}
	fetched(t, ctx, ex, root, data)
	ours := 0
	for _, c := range h.Network().ConnsToPeer(server.ID()) {
		for _, s := range c.GetStreams() {
			switch {
			case s.Protocol() == "/lode/bitswap/1.2.0" && s.Stat().Direction == network.DirOutbound:
				ours++
			case speaksBitswap(s.Protocol()) && s.Stat().Direction == network.DirInbound:
				t.Errorf("the server opened a stream for %s", s.Protocol())
			}
		}
	}
	if ours != 1 {
		t.Errorf("%d streams of ours to the server, want one for all", ours)
	}
}

func TestServersOfBoxoAreNotOfferedAnswersOnTheStreamOfTheWants(t *testing.T) {
	for _, server := range []string{bitswap.ServerBoxo, bitswap.ServerLode} {
		h := newHost(t)
		newExchange(t, bitswap.Config{Host: h, Serve: bitswap.Serve{Server: server}})
		if got := slices.Contains(h.Mux().Protocols(), "/lode/bitswap/1.2.0"); got != (server == bitswap.ServerLode) {
			t.Errorf("%s: offered %v", server, got)
		}
	}
}

// An impatient host opens no Bitswap stream in the way that waits for identify.
type impatient struct{ host.Host }

func (h impatient) NewStream(ctx context.Context, p peer.ID, ids ...protocol.ID) (network.Stream, error) {
	if slices.ContainsFunc(ids, speaksBitswap) {
		return nil, errors.New("waits for identify")
	}
	return h.Host.NewStream(ctx, p, ids...)
}

func TestAFirstBlockWaitsNeitherForIdentifyNorForNegotiation(t *testing.T) {
	ctx := testContext(t)
	src := newStore()
	root, data := addFile(t, src, 1000, 61)
	server := newHost(t)
	newExchange(t, bitswap.Config{Host: impatient{server}, Blocks: src})
	ex := newExchange(t, bitswap.Config{Host: impatient{newHost(t)}, Holders: held(root, info(server))})
	if f := fetched(t, ctx, ex, root, data); f.Path != "holders" {
		t.Errorf("path %q, want the holder", f.Path)
	}
}

func TestAPeerThatDoesNotSpeakWhatIsPresumedIsAskedInItsOwnVersion(t *testing.T) { // reference BS-2
	ctx := testContext(t)
	src := newStore()
	root, data := addFile(t, src, 1<<20, 62)
	old := newHost(t)
	old.SetStreamHandler("/ipfs/id/1.0.0", func(s network.Stream) { s.Reset() }) // it does not say what it speaks
	server := boxo.New(context.Background(), bsnet.NewFromIpfsHost(old, bsnet.SupportedProtocols([]protocol.ID{bsnet.ProtocolBitswapOneOne})), nil, src)
	t.Cleanup(func() { server.Close() })
	ex := newExchange(t, bitswap.Config{Holders: held(root, info(old))})
	if f := fetched(t, ctx, ex, root, data); f.Path == "fallback" {
		t.Errorf("path %q, want the holder, at least for some of it", f.Path)
	}
}
