// Package harness runs the cells of a suite.
package harness
