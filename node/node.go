// Package node introduces the trades to each other: it opens a home, wires
// chain, exchange, prover and gateway together, and runs the few loops that
// carry something from one to the next. Nothing here is a rule; the rules are
// in the treaties, and what they refuse is only reported here.
package node
