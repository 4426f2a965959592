package market_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"testing"

	"github.com/lode-node/lode/market"
)

func messages() []market.Msg {
	return []market.Msg{
		{Place: &market.Place{Root: root("a"), Size: 5, Blocks: 600, Tip: 1, Memo: "hello", Sources: []string{source("a")}}},
		{Place: &market.Place{Root: root("a"), Blocks: 60}},
		{Prepay: &market.Prepay{Root: root("a"), Amount: 1}},
		{Cancel: &market.Cancel{Root: root("a")}},
		{Settle: &market.Settle{Root: root("a")}},
		{Collect: &market.Collect{Node: who("n")}},
		{Collect: &market.Collect{Node: who("n"), Roots: []market.Root{root("a"), root("b")}}},
	}
}

func TestMessagesSurviveTheirEncodings(t *testing.T) { // spec §2.1
	for _, m := range messages() {
		data, err := m.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := market.DecodeMsg(data); err != nil || !reflect.DeepEqual(got, m) {
			t.Errorf("CBOR of %+v: %+v, %v", m, got, err)
		}
		text, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		var got market.Msg
		if err := json.Unmarshal(text, &got); err != nil || !reflect.DeepEqual(got, m) {
			t.Errorf("JSON %s: %+v, %v", text, got, err)
		}
		if !bytes.Contains(text, []byte(`"baf`)) && m.Collect == nil {
			t.Errorf("JSON %s names no CID", text)
		}
	}
}

func TestMessagesThatAreNone(t *testing.T) { // spec §2.4
	two := messages()[0]
	two.Cancel = &market.Cancel{Root: root("a")}
	var many []market.Root
	for i := range market.CollectBatch + 1 {
		many = append(many, root(fmt.Sprint(i)))
	}
	for name, m := range map[string]market.Msg{
		"no verb":            {},
		"two verbs":          two,
		"prepay nothing":     {Prepay: &market.Prepay{Root: root("a")}},
		"prepay no root":     {Prepay: &market.Prepay{Amount: 1}},
		"cancel no root":     {Cancel: &market.Cancel{}},
		"settle a CIDv0":     {Settle: &market.Settle{Root: root("a")[2:]}},
		"settle long bytes":  {Settle: &market.Settle{Root: make(market.Root, 200)}},
		"collect for nobody": {Collect: &market.Collect{}},
		"collect too many":   {Collect: &market.Collect{Node: who("n"), Roots: many}},
		"collect twice":      {Collect: &market.Collect{Node: who("n"), Roots: []market.Root{root("a"), root("a")}}},
		"collect no root":    {Collect: &market.Collect{Node: who("n"), Roots: []market.Root{nil}}},
	} {
		if err := m.Check(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func FuzzDecodeMsg(f *testing.F) {
	for _, m := range messages() {
		data, err := m.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := market.DecodeMsg(data)
		if err != nil {
			return
		}
		again, err := m.Encode()
		if err != nil || !bytes.Equal(again, data) {
			t.Errorf("%x decodes to %+v, which encodes to %x (%v)", data, m, again, err)
		}
	})
}

// FuzzText reads any text as the root or the state of an order: what is taken is
// what it is written as, where there is one spelling.
func FuzzText(f *testing.F) {
	f.Add([]byte(root("a").String()))
	f.Add([]byte("live"))
	f.Add([]byte("zb2rhe5P4gXftAwvA4eXQ5HJwsER2owDyS9sKaQRRVQPn93bA"))
	f.Fuzz(func(t *testing.T, text []byte) {
		var s market.State
		if s.UnmarshalText(text) == nil && s.String() != string(text) {
			t.Errorf("%q reads as %v", text, s)
		}
		var r, again market.Root
		if r.UnmarshalText(text) != nil {
			return
		}
		out, err := r.MarshalText()
		if err != nil {
			t.Fatalf("%q reads as %x: %v", text, []byte(r), err)
		}
		if err := again.UnmarshalText(out); err != nil || !bytes.Equal(r, again) {
			t.Errorf("%q reads as %s, which reads as %x, %v", text, out, []byte(again), err)
		}
	})
}
