package bench

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// bundle is a packet of TCP segments as a kernel gives it to a device.
func bundle(payload, size int) packet {
	p := make(packet, virtioLen+52+payload)
	p[0], p[1] = virtioNeedsSum, virtioTCP4
	binary.NativeEndian.PutUint16(p[4:], uint16(size))
	ip := p[virtioLen:]
	ip[0], ip[8], ip[9] = 0x45, 64, 6
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
	binary.BigEndian.PutUint16(ip[4:], 0xfffe) // the identification goes round
	copy(ip[12:], ip4("10.18.0.1"))
	copy(ip[16:], ip4("10.19.0.2"))
	tcp := ip[20:]
	binary.BigEndian.PutUint32(tcp[4:], 0xfffffff0)
	tcp[12], tcp[13] = 8<<4, 0x99 // 32 bytes of header; CWR, ACK, PSH, FIN
	for i := range payload {
		ip[52+i] = byte(i * 7)
	}
	return p
}

func TestBundlesComeApart(t *testing.T) {
	for _, c := range []struct{ payload, count int }{{1, 1}, {1448, 1}, {1449, 2}, {2896, 2}, {10_000, 7}} {
		p := bundle(c.payload, 1448)
		if !p.isIPv4() || p.src() != [4]byte{10, 18, 0, 1} || p.dst() != [4]byte{10, 19, 0, 2} {
			t.Fatalf("from %v to %v", p.src(), p.dst())
		}
		cut, err := p.segments()
		if err != nil || cut.count != c.count {
			t.Fatalf("%d bytes: %+v, %v; want %d segments", c.payload, cut, err, c.count)
		}
		if cut.count == 1 {
			continue
		}
		var got []byte
		for i := range cut.count {
			s := p.segment(cut, i, make([]byte, 2048))
			if len(s) != virtioLen+p.length(cut, i) || len(s)-virtioLen > 1500 || !s.isIPv4() {
				t.Fatalf("segment %d has %d bytes", i, len(s))
			}
			ip := s[virtioLen:]
			if slow(ip[:20]) != 0xffff {
				t.Errorf("segment %d: checksum of header %#x", i, slow(ip[:20]))
			}
			if id := binary.BigEndian.Uint16(ip[4:]); id != uint16(0xfffe+i) {
				t.Errorf("segment %d: identification %#x", i, id)
			}
			if seq := binary.BigEndian.Uint32(ip[24:]); seq != 0xfffffff0+uint32(len(got)) {
				t.Errorf("segment %d: sequence %#x", i, seq)
			}
			want := byte(0x10)
			if i == 0 {
				want |= 0x80
			}
			if i == cut.count-1 {
				want |= 0x09
			}
			if ip[33] != want {
				t.Errorf("segment %d: flags %#x, want %#x", i, ip[33], want)
			}
			n := len(ip) - 20
			pseudo := append(bytes.Clone(ip[12:20]), 0, 6, byte(n>>8), byte(n))
			if sum := binary.BigEndian.Uint16(ip[36:]); sum != slow(pseudo) {
				t.Errorf("segment %d: pseudo header %#x, want %#x", i, sum, slow(pseudo))
			}
			got = append(got, ip[52:]...)
		}
		if !bytes.Equal(got, p[virtioLen+52:]) {
			t.Errorf("%d bytes came apart into %d others", c.payload, len(got))
		}
	}
}

// slow is the sum of RFC 1071 as it is written there.
func slow(b []byte) uint16 {
	s := uint32(0)
	for i := 0; i < len(b); i += 2 {
		s += uint32(b[i])<<8 + uint32(b[i+1])
		if s > 0xffff {
			s -= 0xffff
		}
	}
	return uint16(s)
}

func FuzzPacket(f *testing.F) {
	f.Add([]byte(bundle(3000, 1448)))
	f.Add([]byte(bundle(1, 1448)))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		p := packet(b)
		if len(b) > parcel || !p.isIPv4() {
			return
		}
		c, err := p.segments()
		if err != nil || c.count == 1 {
			return
		}
		total := 0
		for i := range c.count {
			total += len(p.segment(c, i, make([]byte, parcel+64))) - virtioLen - c.heads
		}
		if want := len(b) - virtioLen - c.heads; total != want {
			t.Errorf("%d bytes of payload in segments, want %d", total, want)
		}
	})
}
