/** What the console uses of uPlot. */
type Values = (number | null)[];

interface Axis {
  stroke: string;
  grid: object;
  ticks: object;
  size?: number;
  values?(self: unknown, values: number[]): string[];
}

export default class uPlot {
  constructor(
    options: {
      width: number;
      height: number;
      cursor: {y: boolean};
      scales: {x: {range(): [number, number]}; y: {range(self: unknown, least: number | null, most: number | null): [number, number]}};
      axes: Axis[];
      series: object[];
    },
    data: Values[],
    host: HTMLElement,
  );
  setData(data: Values[]): void;
  setSize(size: {width: number; height: number}): void;
  destroy(): void;
}
