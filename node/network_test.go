package node

import (
	"testing"

	"github.com/libp2p/go-libp2p/core/peerstore"
	ma "github.com/multiformats/go-multiaddr"
)

// Near peers are reached over TCP, and over QUIC where there is no TCP.
func TestNearPeersSpeakTCP(t *testing.T) {
	for _, c := range []struct {
		listen []string
		want   int
	}{
		{[]string{"/ip4/127.0.0.1/udp/0/quic-v1", "/ip4/127.0.0.1/tcp/0"}, ma.P_TCP},
		{[]string{"/ip4/127.0.0.1/udp/0/quic-v1"}, ma.P_QUIC_V1},
	} {
		key, _, err := newKey()
		if err != nil {
			t.Fatal(err)
		}
		there, err := openHost(key, c.listen)
		if err != nil {
			t.Fatal(err)
		}
		defer there.Close()
		if key, _, err = newKey(); err != nil {
			t.Fatal(err)
		}
		here, err := openHost(key, []string{"/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"})
		if err != nil {
			t.Fatal(err)
		}
		defer here.Close()
		here.Peerstore().AddAddrs(there.ID(), there.Addrs(), peerstore.PermanentAddrTTL)
		conn, err := here.Network().DialPeer(t.Context(), there.ID())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.RemoteMultiaddr().ValueForProtocol(c.want); err != nil {
			t.Errorf("listening on %v: reached at %v, want %s", c.listen, conn.RemoteMultiaddr(), ma.ProtocolWithCode(c.want).Name)
		}
	}
	// Far away the order is libp2p's own.
	far := []ma.Multiaddr{ma.StringCast("/ip4/8.8.8.8/tcp/1"), ma.StringCast("/ip4/8.8.8.8/udp/1/quic-v1")}
	for _, d := range nearTCP(far) {
		if _, err := d.Addr.ValueForProtocol(ma.P_TCP); (err == nil) != (d.Delay > 0) {
			t.Errorf("%v after %v, want QUIC first", d.Addr, d.Delay)
		}
	}
}
