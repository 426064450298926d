// Package fitting finds the parameters of cost laws from timings.
//
// FitOps fits the affine law of one model on one device; Calibrate improves the
// law of a profile, which holds for all models, with a few timings. Both take
// timed operations, whoever timed them:
//
//	fit, residuals, err := fitting.FitOps([]fitting.Sample{{Op: op, Time: took}, ...})
//	sheet.Fitted = append(sheet.Fitted, fit)          // costmodel uses it for this model
//	better, err := fitting.Calibrate(sheet, samples, "timed by hand, 2026-11")
//
// # What it does not do
//
// It times nothing (hardware/probe does) and decides nothing about which timings
// are good: it weighs down what fits badly, no more.
package fitting
