"""How much a text stands out from its ground, as JavaScript for a page that a test has open."""

from __future__ import annotations

# The contrast ratio of WCAG 2.2 of two colours as getComputedStyle gives them: 1 for the same, 21 for black and white.
RATIO = """const ratio = (...colors) => {
    const [a, b] = colors.map((color) => {
        const [red, green, blue] = color.match(/[\\d.]+/g).map((each) => each / 255)
            .map((each) => (each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4));
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
    });
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
};"""
