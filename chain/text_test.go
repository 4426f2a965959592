package chain

import (
	"context"
	"strings"
	"testing"

	abci "github.com/cometbft/cometbft/abci/types"
)

// TestABlockThatWasWrittenCanBeRead gives a block a sentence with bytes that are
// no text, and more events than a message may have elements: readers of the
// block stopped their node, and again after each restart.
func TestABlockThatWasWrittenCanBeRead(t *testing.T) {
	a := testApp(t, AppConfig{})
	defer closeApp(t, a)
	a.store.stage(newOverlay())
	b := Block{Height: 1, Txs: []TxResult{{Code: 1, Log: "not a public address: \xff"}}, Events: make([]Event, 70_000)}
	for i := range b.Events {
		b.Events[i].Kind = "dropped"
	}
	a.block = &proposed{a.first, b}
	a.store.stage(a.first)
	if _, err := a.Commit(context.Background(), &abci.RequestCommit{}); err != nil {
		t.Fatal(err)
	}
	got, err := a.Next(context.Background(), 0)
	if err != nil || len(got.Events) != len(b.Events) || len(got.Txs) != 1 || got.Txs[0].Code != 1 {
		t.Errorf("%d events, %d results, %v", len(got.Events), len(got.Txs), err)
	}
}

// TestALogIsText makes a sentence of bytes that are none, of any length.
func TestALogIsText(t *testing.T) {
	for in, want := range map[string]string{"plain": "plain", "a\xffb": "a\uFFFDb"} {
		if _, got := codeOf(refuse(CodeRefused, "%s", in)); got != want {
			t.Errorf("%q says %q, want %q", in, got, want)
		}
	}
	if _, got := codeOf(refuse(CodeRefused, "%s", strings.Repeat("ä", 100_000))); len(got) > maxLog || !strings.HasSuffix(got, "…") {
		t.Errorf("a log of %d bytes, want at most %d", len(got), maxLog)
	}
}
