// Package scout is what the agent does on a machine before it belongs to a cluster, as the only program of the
// discovery image: find the network, set the clock, say what the machine is, fetch and verify the node image, and hand
// over to it. What it needs again afterwards (the boot interface's lease) is here too.
//
// RunScout and RunNode are the two stages of the agent's life. The conversation with the engine is an Engine, given by
// the program that composes the agent.
package scout
