// Package gpos holds the rules of stake bounded by proven storage (spec §4).
package gpos

// A Msg is what this treaty asks of the chain.
type Msg struct{}

// Params are the constants of this treaty.
type Params struct{}
