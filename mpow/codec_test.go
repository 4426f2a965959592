package mpow_test

import (
	"bytes"
	"math/rand"
	"reflect"
	"strings"
	"testing"

	"github.com/lode-node/lode/mpow"
)

func TestReportRoundTripAndOneBitRefused(t *testing.T) { // spec §2.1, §3.5
	p := params(t)
	n := node(t, p, file("a", 10))
	r := report(n, 6)
	r.Added, r.Dropped, r.Listed = []mpow.File{file("b", 1)}, []mpow.File{}, []mpow.File{file("c", 2)}
	s := sign(t, r)
	back, err := s.Report()
	if err != nil || !reflect.DeepEqual(back, r) {
		t.Fatalf("got %+v, %v; want %+v", back, err, r)
	}
	for i := range len(s.Body) * 8 {
		bad := mpow.Signed{Body: bytes.Clone(s.Body), Sig: s.Sig}
		bad.Body[i/8] ^= 1 << (i % 8)
		if bad.Verify(n.Kind, n.Key) == nil {
			t.Fatalf("bit %d changed and the signature still holds", i)
		}
		if bad.Hash() == s.Hash() {
			t.Fatalf("bit %d changed and the next report may build on either", i)
		}
	}
}

func TestReportCannotBeSignedWithABadRoot(t *testing.T) {
	r := report(node(t, params(t)), 6)
	r.Added = []mpow.File{{}}
	if _, err := r.Sign(testKey); err == nil {
		t.Fatal("signed")
	}
}

func TestDecodeTakesOneEncodingOnly(t *testing.T) {
	want := mpow.NumberReply{Number: 2}
	good, err := mpow.Encode(want)
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string][]byte{
		"trailing byte": append(bytes.Clone(good), 0),
		"cut":           good[:len(good)-1],
		"empty":         {},
		"longer number": append(bytes.Clone(good[:len(good)-1]), 0x18, 0x02),
		"unknown field": bytes.Replace(good, []byte("number"), []byte("numbeR"), 1),
		"indefinite":    append(append([]byte{0xbf}, good[1:]...), 0xff),
		"tagged":        append([]byte{0xd8, 0x40}, good...),
	} {
		var n mpow.NumberReply
		if err := mpow.Decode(bad, &n); err == nil {
			t.Errorf("%s: % x was taken as %+v", name, bad, n)
		}
	}
	var n mpow.NumberReply
	if err := mpow.Decode(good, &n); err != nil || n != want {
		t.Errorf("%+v, %v", n, err)
	}
}

func TestNodeRecordRoundTrip(t *testing.T) {
	n := node(t, params(t), file("a", 10))
	data, err := mpow.Encode(n)
	if err != nil {
		t.Fatal(err)
	}
	var back mpow.Node
	if err := mpow.Decode(data, &back); err != nil || !reflect.DeepEqual(back, n) {
		t.Fatalf("got %+v, %v", back, err)
	}
	if err := mpow.Decode(data[1:], &back); err == nil {
		t.Error("half a record was taken")
	}
}

func FuzzReport(f *testing.F) {
	n := node(f, params(f))
	r := report(n, 6)
	r.Added = []mpow.File{file("b", 1)}
	f.Add(sign(f, r).Body)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := mpow.Signed{Body: data}.Report()
		if err != nil {
			return
		}
		again, err := mpow.Encode(r)
		if err != nil || !bytes.Equal(again, data) {
			t.Fatalf("% x came back as % x, %v", data, again, err)
		}
	})
}

func FuzzNode(f *testing.F) {
	data, err := mpow.Encode(node(f, params(f), file("a", 1)))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		var n mpow.Node
		if mpow.Decode(data, &n) != nil {
			return
		}
		again, err := mpow.Encode(n)
		if err != nil || !bytes.Equal(again, data) {
			t.Fatalf("% x came back as % x, %v", data, again, err)
		}
	})
}

func FuzzMsg(f *testing.F) {
	s := sign(f, report(node(f, params(f)), 6))
	one := mpow.Msg{
		Register: &mpow.Register{Kind: mpow.KindSimulated, Key: make([]byte, 32), Height: 1, Evidence: make([]byte, 64)}, Report: &s,
		Group: &mpow.Group{Verb: mpow.GroupAllow, Account: testAccount}, Answer: &mpow.Answer{Slot: 6, Blocks: [][]byte{{1}}},
		Recover: &mpow.Recover{Body: s.Body, Sig: s.Sig}, Page: &mpow.Page{Body: s.Body, Sig: s.Sig},
		Handover: &mpow.Handover{Register: mpow.Register{Kind: mpow.KindSimulated, Key: make([]byte, 32)}, Report: s, Sig: s.Sig},
	}
	for i := range reflect.TypeFor[mpow.Msg]().NumField() { // one of each verb
		field := reflect.ValueOf(one).Field(i)
		if field.IsNil() {
			f.Fatalf("no %s to begin with", reflect.TypeFor[mpow.Msg]().Field(i).Name)
		}
		var m mpow.Msg
		reflect.ValueOf(&m).Elem().Field(i).Set(field)
		data, err := mpow.Encode(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var m mpow.Msg
		if err := mpow.Decode(data, &m); err != nil {
			return
		}
		again, err := mpow.Encode(m)
		if err != nil || !bytes.Equal(again, data) {
			t.Fatalf("% x came back as % x, %v", data, again, err)
		}
	})
}

func FuzzAccountText(f *testing.F) {
	f.Add([]byte("12D3KooWGzxzKZYveHXtpG6AsrUJBcWxHBFS2HsEoGTxrMLvKXtf"))
	f.Fuzz(func(t *testing.T, text []byte) {
		var a mpow.Account
		if err := a.UnmarshalText(text); err == nil && a.String() != string(text) {
			t.Fatalf("%q came back as %q", text, a.String())
		}
	})
}

// FuzzText reads any text as what is written in JSON: what is taken is written the
// same, but for the case of digits.
func FuzzText(f *testing.F) {
	f.Add([]byte("simulated"))
	f.Add([]byte(mpow.FMSPC{1, 2}.String()))
	f.Add([]byte(mpow.Hash{3}.String()))
	f.Fuzz(func(t *testing.T, text []byte) {
		var k mpow.Kind
		var m mpow.FMSPC
		var h mpow.Hash
		for _, x := range []interface {
			UnmarshalText([]byte) error
			String() string
		}{&k, &m, &h} {
			if x.UnmarshalText(text) == nil && x.String() != strings.ToLower(string(text)) {
				t.Errorf("%q reads as %v, a %T", text, x, x)
			}
		}
	})
}

func TestLtHashLaws(t *testing.T) { // spec §3.6
	rng := rand.New(rand.NewSource(2))
	elements := make([][]byte, 40)
	for i := range elements {
		elements[i] = make([]byte, rng.Intn(60))
		rng.Read(elements[i])
	}
	sum := func(order []int) (h mpow.LtHash) {
		for _, i := range order {
			h.Add(elements[i])
		}
		return h
	}
	order := rng.Perm(len(elements))
	all := sum(order)
	for range 5 {
		if sum(rng.Perm(len(elements))) != all {
			t.Fatal("order matters")
		}
	}
	h := all
	for _, i := range rng.Perm(len(elements)) {
		h.Sub(elements[i])
	}
	if h != (mpow.LtHash{}) {
		t.Fatal("taking all away does not leave nothing")
	}
	var once, twice mpow.LtHash
	once.Add(elements[0])
	twice.Add(elements[0])
	twice.Add(elements[0])
	if once == twice || once.Digest() == twice.Digest() || once.Digest() == all.Digest() {
		t.Fatal("multisets that differ hash alike")
	}
	h = all
	h.Sub([]byte("never added"))
	h.Add([]byte("never added"))
	if h != all {
		t.Fatal("taking away and adding do not cancel")
	}
}

func TestFilesDifferByRootAndBySize(t *testing.T) { // spec §3.6
	var a, b, c mpow.LtHash
	a.AddFile(file("a", 1))
	b.AddFile(file("a", 2))
	c.AddFile(file("b", 1))
	if a == b || a == c || b == c {
		t.Fatal("two files stand for one element")
	}
}
