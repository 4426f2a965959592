// Package credit holds the rules of who served whom how well, and what that earns (spec §7).
package credit

// A Msg is what this treaty asks of the chain.
type Msg struct{}

// Params are the constants of this treaty.
type Params struct{}
