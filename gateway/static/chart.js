// Candles and volume, drawn by lightweight-charts (the global LightweightCharts).

const UP = "#26c281", DOWN = "#f0616d";

export class Chart {
  constructor(container) {
    const { createChart, ColorType, CrosshairMode } = window.LightweightCharts;
    this.chart = createChart(container, {
      autoSize: true,
      layout: {
        background: { type: ColorType.Solid, color: "transparent" }, textColor: "#8fa3bf", fontSize: 11,
        fontFamily: getComputedStyle(document.body).fontFamily,
      },
      grid: { vertLines: { color: "#1c2636" }, horzLines: { color: "#1c2636" } },
      crosshair: { mode: CrosshairMode.Normal },
      rightPriceScale: { borderColor: "#243145" },
      timeScale: { borderColor: "#243145", timeVisible: true, secondsVisible: false, rightOffset: 4 },
    });
    this.candles = this.chart.addCandlestickSeries({
      upColor: UP, downColor: DOWN, wickUpColor: UP, wickDownColor: DOWN, borderVisible: false,
    });
    this.volume = this.chart.addHistogramSeries({
      priceScaleId: "", priceFormat: { type: "volume" }, lastValueVisible: false, priceLineVisible: false,
    });
    this.volume.priceScale().applyOptions({ scaleMargins: { top: 0.82, bottom: 0 } });
    this.candles.priceScale().applyOptions({ scaleMargins: { top: 0.08, bottom: 0.22 } });
    this.newest = 0;
  }

  clear() { this.show([]); }

  // All candles, oldest first.
  show(candles) {
    const points = candles.map(toPoint);
    this.candles.setData(points.map((point) => point.candle));
    this.volume.setData(points.map((point) => point.volume));
    this.newest = points.at(-1)?.candle.time ?? 0;
    // Some ninety candles fit; a few alone are not blown up to fill the chart.
    const shown = Math.min(90, Math.max(40, points.length));
    this.chart.timeScale().setVisibleLogicalRange({ from: points.length - shown, to: points.length + 4 });
  }

  // A candle that is new or has changed; one older than the newest is left as it is.
  update(candle) {
    const point = toPoint(candle);
    if (point.candle.time < this.newest) return;
    this.newest = point.candle.time;
    this.candles.update(point.candle);
    this.volume.update(point.volume);
  }
}

function toPoint({ open_time, open, high, low, close, volume }) {
  const time = Date.parse(open_time) / 1000;
  const color = Number(close) >= Number(open) ? "#26c28155" : "#f0616d55";
  return {
    candle: { time, open: Number(open), high: Number(high), low: Number(low), close: Number(close) },
    volume: { time, value: Number(volume), color },
  };
}
