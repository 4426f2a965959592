package gpos_test

import (
	"bytes"
	"reflect"
	"testing"

	"github.com/lode-node/lode/chain/gpos"
)

func messages() []gpos.Msg {
	v := validating(1, 7)
	return []gpos.Msg{
		{Bond: &gpos.Bond{Amount: 5}},
		{BondExtra: &gpos.BondExtra{Amount: 1 << 60}},
		{Unbond: &gpos.Unbond{Amount: 5}},
		{Rebond: &gpos.Rebond{Amount: 5}},
		{Withdraw: &gpos.Withdraw{}},
		{Validate: &v},
		{Guarantee: &gpos.Guarantee{Target: who(1), Amount: 5}},
		{CutGuarantee: &gpos.CutGuarantee{Target: who(1), Amount: 5}},
		{Chill: &gpos.Chill{}},
		{Payout: &gpos.Payout{Account: who(1), Era: 9}},
		{Unjail: &gpos.Unjail{}},
	}
}

func TestMsgRoundTrip(t *testing.T) { // spec §2.4
	if got, want := len(messages()), reflect.TypeFor[gpos.Msg]().NumField(); got != want {
		t.Fatalf("%d messages, Msg has %d fields", got, want)
	}
	for _, m := range messages() {
		verb, err := m.Verb()
		if err != nil {
			t.Fatal(err)
		}
		data, err := m.Encode()
		if err != nil {
			t.Fatalf("%s: %v", verb, err)
		}
		got, err := gpos.DecodeMsg(data)
		if err != nil || !reflect.DeepEqual(got, m) {
			t.Errorf("%s: decoded %+v, %v; want %+v", verb, got, err, m)
		}
	}
}

func TestMsgRefuses(t *testing.T) { // spec §2.3
	both := gpos.Msg{Chill: &gpos.Chill{}, Unjail: &gpos.Unjail{}}
	short := validating(1, 0)
	short.Key = short.Key[:31]
	for name, m := range map[string]gpos.Msg{
		"none":              {},
		"two":               both,
		"short key":         {Validate: &short},
		"no target":         {Guarantee: &gpos.Guarantee{Amount: 5}},
		"no target to cut":  {CutGuarantee: &gpos.CutGuarantee{Amount: 5}},
		"no account to pay": {Payout: &gpos.Payout{Era: 5}},
		"a long account":    {Payout: &gpos.Payout{Account: who(1) + who(2)}},
	} {
		if err := m.Check(); err == nil {
			t.Errorf("%s: accepted", name)
		}
		if data, err := m.Encode(); err == nil {
			if _, err := gpos.DecodeMsg(data); err == nil {
				t.Errorf("%s: decoded", name)
			}
		}
	}
	data, err := messages()[0].Encode()
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string][]byte{
		"nothing":          nil,
		"cut short":        data[:len(data)-1],
		"a byte too many":  append(bytes.Clone(data), 0),
		"too long":         make([]byte, gpos.MaxMsgSize+1),
		"a long number":    bytes.Replace(data, []byte{5}, []byte{0x18, 5}, 1),
		"an unknown field": bytes.Replace(data, []byte("bond"), []byte("bund"), 1),
	} {
		if m, err := gpos.DecodeMsg(bad); err == nil {
			t.Errorf("%s: decoded to %+v", name, m)
		}
	}
}

// FuzzDecodeMsg: decoding never panics, and what decodes encodes to the same
// bytes. Spec §2.3.
func FuzzDecodeMsg(f *testing.F) {
	for _, m := range messages() {
		data, err := m.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := gpos.DecodeMsg(data)
		if err != nil {
			return
		}
		again, err := m.Encode()
		if err != nil || !bytes.Equal(again, data) {
			t.Fatalf("%x decodes to %+v, which encodes to %x, %v", data, m, again, err)
		}
	})
}
