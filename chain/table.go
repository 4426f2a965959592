package chain

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/fxamacker/cbor/v2"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/mpow"
)

// A table is a typed part of the state: prefix and key codec here, values in
// deterministic CBOR. Tables are constants of this package; all state is in the
// [source] or [state] given to their methods.
type table[K, V any] struct {
	prefix string
	key    keyCodec[K]
}

// A keyCodec turns a K into bytes that sort as K does, and back. Two parts of a
// joined key need a first part of which no value is a prefix of another.
type keyCodec[K any] struct {
	put  func([]byte, K) []byte
	take func([]byte) (K, []byte, error)
}

// Codecs of the parts that keys are made of.
var (
	whoKey = keyCodec[peer.ID]{
		put: func(b []byte, p peer.ID) []byte { return append(b, p...) },
		take: func(b []byte) (peer.ID, []byte, error) {
			if len(b) < whoLen {
				return "", nil, fmt.Errorf("key of %d bytes is too short for an account", len(b))
			}
			return peer.ID(b[:whoLen]), b[whoLen:], nil
		},
	}
	rootKey = keyCodec[cid.Cid]{
		put: func(b []byte, c cid.Cid) []byte { return append(b, c.Bytes()...) },
		take: func(b []byte) (cid.Cid, []byte, error) {
			n, c, err := cid.CidFromBytes(b)
			if err != nil {
				return cid.Undef, nil, err
			}
			return c, b[n:], nil
		},
	}
	numberKey = keyCodec[uint64]{
		put: binary.BigEndian.AppendUint64,
		take: func(b []byte) (uint64, []byte, error) {
			if len(b) < 8 {
				return 0, nil, fmt.Errorf("key of %d bytes is too short for a number", len(b))
			}
			return binary.BigEndian.Uint64(b), b[8:], nil
		},
	}
	// hashKey is 32 bytes.
	hashKey = keyCodec[mpow.Hash]{
		put: func(b []byte, h mpow.Hash) []byte { return append(b, h[:]...) },
		take: func(b []byte) (h mpow.Hash, rest []byte, err error) {
			if len(b) < len(h) {
				return h, nil, fmt.Errorf("key of %d bytes is too short for a hash", len(b))
			}
			return mpow.Hash(b[:len(h)]), b[len(h):], nil
		},
	}
	// wordKey is a word of this package's own; it may only stand last.
	wordKey = keyCodec[string]{
		put:  func(b []byte, w string) []byte { return append(b, w...) },
		take: func(b []byte) (string, []byte, error) { return string(b), nil, nil },
	}
)

// whoLen is the length of an ed25519 peer.ID: identity multihash, protobuf
// header, key.
const whoLen = 38

// A both is a key of two parts.
type both[A, B any] struct {
	A A
	B B
}

// join returns the codec of a key of two parts; prefix scans by the first.
func join[A, B any](a keyCodec[A], b keyCodec[B]) keyCodec[both[A, B]] {
	return keyCodec[both[A, B]]{
		put: func(dst []byte, k both[A, B]) []byte { return b.put(a.put(dst, k.A), k.B) },
		take: func(src []byte) (k both[A, B], rest []byte, err error) {
			if k.A, rest, err = a.take(src); err != nil {
				return k, nil, err
			}
			k.B, rest, err = b.take(rest)
			return k, rest, err
		},
	}
}

func (t table[K, V]) raw(k K) []byte { return t.key.put([]byte(t.prefix), k) }

// get returns the value at k, and whether there is one.
func (t table[K, V]) get(s source, k K) (V, bool) {
	key := t.raw(k)
	b, ok := s.get(key)
	if !ok {
		var none V
		return none, false
	}
	if st, ok := s.(*state); ok && hot(t.prefix) {
		return recall(st, t, key, b), true
	}
	return t.value(b), true
}

// hot says of which tables a state remembers values decoded: those of which a
// report reads the same few, of two kilobytes each, for each of its files. Nobody
// writes through a pointer in them.
func hot(prefix string) bool { return prefix == keyNode || prefix == keyDigest }

// decoded is the value that the bytes at raw spell.
type decoded struct {
	raw   *byte
	value any
}

// recall returns the value of b at key. The state keeps the bytes that it has
// decoded, so the same address is the same value.
func recall[K, V any](s *state, t table[K, V], key, b []byte) V {
	if len(b) == 0 {
		return t.value(b)
	}
	if d, ok := s.decoded[string(key)]; ok && d.raw == &b[0] {
		return *d.value.(*V)
	}
	v := t.value(b)
	if s.decoded == nil {
		s.decoded = map[string]decoded{}
	}
	s.decoded[string(key)] = decoded{&b[0], &v}
	return v
}

// must returns the value at k or the zero value.
func (t table[K, V]) must(s source, k K) V {
	v, _ := t.get(s, k)
	return v
}

// has reports whether there is a value at k.
func (t table[K, V]) has(s source, k K) bool {
	_, ok := s.get(t.raw(k))
	return ok
}

func (t table[K, V]) value(b []byte) V {
	var v V
	switch p := any(&v).(type) {
	case *account:
		if p.read(b) {
			return v
		}
	case *coin.Amount:
		if x, rest, ok := readUint(b); ok && len(rest) == 0 {
			*p = coin.Amount(x)
			return v
		}
	}
	if err := decMode.Unmarshal(b, &v); err != nil {
		panic(fmt.Sprintf("chain: table %s holds a value that does not decode: %v", t.prefix, err))
	}
	return v
}

// set writes v at k.
func (t table[K, V]) set(s *state, k K, v V) { s.set(t.raw(k), encode(v)) }

// del removes what is at k.
func (t table[K, V]) del(s *state, k K) { s.del(t.raw(k)) }

// each calls fn in key order until it returns false. Above a *state fn may write.
func (t table[K, V]) each(s source, fn func(K, V) bool) {
	t.scan(s, []byte(t.prefix), past([]byte(t.prefix)), fn)
}

// under is each for the keys whose encoding begins with part, the encoding of
// the first part of a joined key: t.under(s, whoKey.put(nil, node), fn).
func (t table[K, V]) under(s source, part []byte, fn func(K, V) bool) {
	from := append([]byte(t.prefix), part...)
	t.scan(s, from, past(from), fn)
}

// beyond is under for the keys that come after k, which need not be there, or
// for all of them if from is false. Nobody's key is a prefix of another.
func (t table[K, V]) beyond(s source, part []byte, k K, from bool, fn func(K, V) bool) {
	first := append([]byte(t.prefix), part...)
	end := past(first)
	if from {
		first = append(t.raw(k), 0)
	}
	t.scan(s, first, end, fn)
}

func (t table[K, V]) scan(s source, from, end []byte, fn func(K, V) bool) {
	s.each(from, end, func(key, value []byte) bool {
		k, rest, err := t.key.take(key[len(t.prefix):])
		if err != nil || len(rest) != 0 {
			panic(fmt.Sprintf("chain: table %s holds a key that does not decode: %x: %v", t.prefix, key, err))
		}
		return fn(k, t.value(value))
	})
}

var (
	encMode = func() cbor.EncMode {
		o := cbor.CoreDetEncOptions()
		o.Time = cbor.TimeUnixMicro
		m, err := o.EncMode()
		if err != nil {
			panic(err)
		}
		return m
	}()
	// localMode reads what this node wrote for itself, whatever is in it: a block
	// that cannot be read stops its reader, again after each restart.
	localMode = func() cbor.DecMode {
		m, err := cbor.DecOptions{
			DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden, TagsMd: cbor.TagsForbidden,
			UTF8: cbor.UTF8DecodeInvalid, MaxArrayElements: math.MaxInt32,
		}.DecMode()
		if err != nil {
			panic(err)
		}
		return m
	}()
	decMode = func() cbor.DecMode {
		m, err := cbor.DecOptions{
			DupMapKey:         cbor.DupMapKeyEnforcedAPF,
			IndefLength:       cbor.IndefLengthForbidden,
			ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
			TagsMd:            cbor.TagsForbidden,
			MaxNestedLevels:   16,
			MaxArrayElements:  1 << 16,
			MaxMapPairs:       256,
		}.DecMode()
		if err != nil {
			panic(err)
		}
		return m
	}()
)

// encode returns deterministic CBOR (RFC 8949 core). It panics on a type that
// has none: values are ours.
func encode(v any) []byte {
	switch v := v.(type) {
	case account:
		return v.spell()
	case coin.Amount:
		return appendUint(nil, uint64(v))
	}
	b, err := encMode.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("chain: encode %T: %v", v, err))
	}
	return b
}
