#!/usr/bin/env bash
# Make mlmodeldev/report/files/plots.min.js, the charts of the report page, anew (needs npm).
set -euo pipefail
ECHARTS=6.1.0 ESBUILD=0.28.2
root=$(cd "$(dirname "$0")/.." && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cp "$root/tools/plots.js" "$scratch/"
cd "$scratch"
npm install --silent --no-audit --no-fund --ignore-scripts "echarts@$ECHARTS" "esbuild@$ESBUILD"
npx esbuild plots.js --bundle --minify --format=iife --global-name=plots --legal-comments=none \
  --define:process.env.NODE_ENV='"production"' --log-level=warning --outfile=plots.min.js
{
  echo "plots.min.js: Apache ECharts $ECHARTS (Apache License 2.0) with zrender (BSD 3-Clause), by tools/plots.sh"
  for file in echarts/NOTICE echarts/LICENSE zrender/LICENSE tslib/LICENSE.txt; do
    printf '\n== %s\n\n' "$file"
    cat "node_modules/$file"
  done
} >LICENSE.txt
cp plots.min.js "$root/mlmodeldev/report/files/plots.min.js"
cp LICENSE.txt "$root/mlmodeldev/report/files/plots.LICENSE.txt"
