"""Latency and accuracy of engines, side by side on one machine.

Nothing is imported here: ``edgeseg.benchmark.coldstart`` times a fresh process that starts in this
package.
"""
