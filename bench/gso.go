package bench

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

// virtioLen is how long the header is that a device puts before a packet.
const virtioLen = 10

// Fields of that header (virtio 1.2 §5.1.6).
const (
	virtioNeedsSum = 1 // flag: the checksum is that of the pseudo header only
	virtioTCP4     = 1 // type: TCP over IPv4 of several segments
	virtioECN      = 0x80
)

// A packet is an IPv4 packet behind its virtio header.
type packet []byte

// ip4 parses an IPv4 address of this package's own.
func ip4(s string) []byte { return netip.MustParseAddr(s).AsSlice() }

// isIPv4 tells if the packet is whole.
func (p packet) isIPv4() bool {
	return len(p) >= virtioLen+20 && p[virtioLen]>>4 == 4 && int(binary.BigEndian.Uint16(p[virtioLen+2:])) <= len(p)-virtioLen
}

func (p packet) src() [4]byte { return [4]byte(p[virtioLen+12:]) }
func (p packet) dst() [4]byte { return [4]byte(p[virtioLen+16:]) }

// A cut says how a packet of several TCP segments comes apart.
type cut struct {
	heads int // bytes of IP and TCP headers
	size  int // of payload in each segment but the last
	count int
}

// segments returns how p comes apart; one that is no bundle has count 1.
func (p packet) segments() (cut, error) {
	kind := p[1] &^ virtioECN
	if kind == 0 {
		return cut{count: 1}, nil
	}
	if kind != virtioTCP4 {
		return cut{}, fmt.Errorf("segments of kind %d", kind)
	}
	ip := p[virtioLen:]
	ihl := int(ip[0]&15) * 4
	if ip[9] != 6 || ihl < 20 || len(ip) < ihl+20 {
		return cut{}, errors.New("not TCP")
	}
	c := cut{heads: ihl + int(ip[ihl+12]>>4)*4, size: int(binary.NativeEndian.Uint16(p[4:]))}
	if c.size == 0 || c.heads < ihl+20 || c.heads >= len(ip) {
		return cut{}, errors.New("segments of nothing")
	}
	c.count = (len(ip) - c.heads + c.size - 1) / c.size
	return c, nil
}

// length is how many bytes segment i is on the wire.
func (p packet) length(c cut, i int) int {
	if c.count == 1 {
		return len(p) - virtioLen
	}
	return c.heads + min(c.size, len(p)-virtioLen-c.heads-i*c.size)
}

// segment writes segment i of p to buf, which has room, as a packet of its own
// (RFC 9293 §3.1), and returns it.
func (p packet) segment(c cut, i int, buf []byte) packet {
	n := p.length(c, i)
	out := packet(buf[:virtioLen+n])
	copy(out, p[:virtioLen+c.heads])
	copy(out[virtioLen+c.heads:], p[virtioLen+c.heads+i*c.size:])
	out[0], out[1] = virtioNeedsSum, 0
	binary.NativeEndian.PutUint16(out[4:], 0)

	ip := out[virtioLen:]
	ihl := int(ip[0]&15) * 4
	binary.BigEndian.PutUint16(ip[2:], uint16(n))
	binary.BigEndian.PutUint16(ip[4:], binary.BigEndian.Uint16(ip[4:])+uint16(i))
	binary.BigEndian.PutUint16(ip[10:], 0)
	binary.BigEndian.PutUint16(ip[10:], ^sum(ip[:ihl], 0))

	tcp := ip[ihl:]
	binary.BigEndian.PutUint32(tcp[4:], binary.BigEndian.Uint32(tcp[4:])+uint32(i*c.size))
	const fin, push, reduced = 0x01, 0x08, 0x80
	if i < c.count-1 {
		tcp[13] &^= fin | push
	}
	if i > 0 {
		tcp[13] &^= reduced
	}
	// The pseudo header: addresses, protocol, length.
	binary.BigEndian.PutUint16(tcp[16:], sum(ip[12:20], 6+uint32(n-ihl)))
	return out
}

// sum is the sum of b in ones' complement, begun at start (RFC 1071).
func sum(b []byte, start uint32) uint16 {
	s := start
	for ; len(b) >= 2; b = b[2:] {
		s += uint32(binary.BigEndian.Uint16(b))
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}
